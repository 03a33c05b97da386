"""python hack/oras: build oras and print its path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # the folder of this file when it runs as a program

from oras.binary import ORAS  # noqa: E402

if __name__ == "__main__":
    print(ORAS.build(nice=19))
