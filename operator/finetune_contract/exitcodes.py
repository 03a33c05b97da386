"""Exit codes of the stage programs (and, for 65 and 75, of the command line), after BSD's sysexits where it has one."""

DONE = 0
"""The stage has succeeded and written its result."""

USER_ERROR = 65
"""The user must change something (``EX_DATAERR``): a retry without a change fails again."""

TRY_AGAIN = 75
"""A transient fault (``EX_TEMPFAIL``): a retry with the same inputs may succeed."""

INTERRUPTED = 143
"""Stopped by SIGTERM before the work was done (128 + 15): resumable, and not counted as a failed attempt."""
