"""``python -m finetune_stages.training``; also the entry point of the zip application. With ``--check`` it checks the image."""

from __future__ import annotations

import sys

from .stage import main as run_stage

__all__ = ["main"]


def main() -> int:
    """Run the stage, or the check, and return the exit code."""
    if len(sys.argv) == 1:
        return run_stage()
    from .check import main as check

    return check(sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
