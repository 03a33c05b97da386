"""python hack/prerequisites GROUP...: see :mod:`prerequisites.command`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "hack")  # the folder of this file when it runs as a program
sys.path.insert(1, str(ROOT / "images" / "build"))

from prerequisites.command import main  # noqa: E402

if __name__ == "__main__":
    raise SystemExit(main())
