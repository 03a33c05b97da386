"""Exit codes of the stage programs (and, for 65 and 75, of the command line), after BSD's sysexits where it has one."""

DONE = 0
"""The stage is finished and its result says so."""

USER_ERROR = 65
"""The user must change something (``EX_DATAERR``): trying again without a change is no use."""

TRY_AGAIN = 75
"""A passing fault (``EX_TEMPFAIL``): the same program with the same inputs may succeed later."""

INTERRUPTED = 143
"""Ended by SIGTERM before the work was done (128 + 15): resumable, counts against nobody."""
