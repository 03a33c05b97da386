"""Version names: which one to take where the wanted one is taken."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection

_PATCH = re.compile(r"(v?\d+\.\d+\.)(\d+)")


def next_version(wanted: str, taken: Collection[str]) -> str:
    """``wanted``, or the next free patch version after it.

    ``1.2.3`` becomes ``1.2.4``, ``1.2.5`` ... What is no plain ``major.minor.patch`` gets a number of its own behind a dot:
    ``v1`` becomes ``v1.1``, ``1.2.3-rc1`` becomes ``1.2.3-rc1.1``, so that what its owner means by it stays readable.
    """
    if wanted not in taken:
        return wanted
    found = _PATCH.fullmatch(wanted)
    stem, last = (found[1], int(found[2])) if found else (f"{wanted}.", 0)
    return next(name for number in itertools.count(last + 1) if (name := f"{stem}{number}") not in taken)
