"""python3 hack/bootstrap: see :mod:`bootstrap.command`."""

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - an older Python runs this file up to here
    sys.exit("PYTHON: Python 3.11 or later is required, this is " + sys.version.split()[0] + "; set PYTHON to a newer one")

ROOT = Path(__file__).resolve().parents[2]
sys.path[0] = str(ROOT / "hack")  # the folder of this file when it runs as a program
sys.path.insert(1, str(ROOT / "images" / "build"))

from bootstrap.command import main  # noqa: E402

if __name__ == "__main__":
    raise SystemExit(main())
