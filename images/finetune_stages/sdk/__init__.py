"""SDK of the stage programs: the input document, the attempt, publishing, progress and the result.

Standard library only: the training bundle carries it into images that do not contain this project.
"""

from .context import Context, Finished
from .fault import StageError
from .imports import quick_imports, without
from .program import run_stage
from .reuse import Reuse
from .workspace import Seal, publish_directory, read_seal, seal_directory, verify_seal, write_file

__all__ = [
    "Context", "Finished", "Reuse", "Seal", "StageError", "publish_directory", "quick_imports", "read_seal", "run_stage",
    "seal_directory", "verify_seal", "without", "write_file",
]  # fmt: skip
