"""Exit codes of ``finetune``: those of BSD's sysexits where it has one. ``docs/cli.md`` lists them."""

OK = 0
FAILED = 1
"""The run failed for a reason that is neither an error of the user nor temporary."""
USAGE = 2
"""The command line is invalid."""
REJECTED = 3
"""All stages completed, and the gate rejected the model."""
INVALID = 65
"""The user must change something: a file, a value, the data."""
NO_INPUT = 66
"""The file, run or stage does not exist."""
UNAVAILABLE = 69
"""A requirement is not installed: a Python package, or the operator in the cluster."""
TRY_AGAIN = 75
"""A temporary fault, or the folder is in use; the same command may succeed later."""
NO_PERMISSION = 77
"""The cluster does not authenticate or authorize the user."""
INTERRUPTED = 130
"""Stopped by Ctrl-C, or suspended by another command, before the run's end. The run continues where it stopped."""
