"""Exit codes of ``finetune``: those of BSD's sysexits where it has one. ``docs/cli.md`` lists them."""

OK = 0
FAILED = 1
"""The run ended without success for a reason that is neither the user's nor a passing one."""
USAGE = 2
"""The command line itself is wrong."""
REJECTED = 3
"""The run has done all its work, and its gate did not let the model pass."""
INVALID = 65
"""The user must change something: a file, a value, the data."""
NO_INPUT = 66
"""There is no such file, run or stage."""
UNAVAILABLE = 69
"""Something that the command needs is not installed: a Python package, or FineTuneRun in the cluster."""
TRY_AGAIN = 75
"""A passing fault, or the workspace is in use: the same command may succeed later."""
NO_PERMISSION = 77
"""The cluster does not know the caller, or does not let him."""
INTERRUPTED = 130
"""Stopped by Ctrl-C, or suspended by another command, before the run's end. The run continues where it stopped."""
