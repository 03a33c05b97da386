"""What the control plane and the stage programs share: documents, results, exit codes, reasons, the workspace's layout.

Standard library only: the package travels inside the training program's zip application into images that know nothing
of this project. ``CONTRACT_VERSION`` goes into every document and every result; a reader refuses a version it does not know.
"""

CONTRACT_VERSION = 2
