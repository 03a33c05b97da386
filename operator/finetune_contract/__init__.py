"""Contract between control plane and stage programs: documents, results, exit codes, reasons, URIs, the workspace's layout.

Standard library only: the training bundle carries the package into images that do not contain this project. ``CONTRACT_VERSION`` is in
every document and every result; a reader rejects an unknown version.
"""

CONTRACT_VERSION = 2
