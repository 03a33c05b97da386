"""python hack/kind COMMAND: see :mod:`kind.command`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # the folder of this file when it runs as a program

from kind.command import main  # noqa: E402

if __name__ == "__main__":
    raise SystemExit(main())
