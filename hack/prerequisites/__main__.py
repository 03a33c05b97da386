"""python hack/prerequisites GROUP...: see :mod:`prerequisites.command`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # the folder of this file when it runs as a program

from prerequisites.command import main  # noqa: E402

if __name__ == "__main__":
    raise SystemExit(main())
