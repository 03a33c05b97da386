"""python3 hack/bootstrap: make .venv with all packages for runs and tests, or bring it up to date.

Without an NVIDIA driver the packages that only GPUs need are left out, 4 GB of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from . import state
from .accelerator import CHOICES, Choice, ChoiceError, preferred, resolve
from .install import InstallError, install
from .state import State

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        _set_up(ROOT, ROOT / ".venv", cast("Choice | None", options.accelerator or None))
    except (ChoiceError, InstallError, OSError) as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 hack/bootstrap", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--accelerator",
        choices=("", *CHOICES),
        metavar="{" + ",".join(CHOICES) + "}",
        help="with NVIDIA's libraries (cuda), with placeholders for them (cpu), or as this machine's driver decides (auto); "
        "without it the last request stays in force",
    )
    return parser


def _set_up(root: Path, folder: Path, requested: Choice | None) -> None:
    """Install what is missing; an environment that is up to date is left as it is.

    The programs that compile placeholders are looked for only before an installation: a complete environment needs none of them.
    """
    found, digest = state.read(folder), state.digest(root)
    choice = requested or (found.choice if found else "auto")
    wanted = State(digest, preferred(choice)[0], choice)
    if not _is_complete(found, wanted):
        accelerator, reason = resolve(choice)
        wanted = State(digest, accelerator, choice)
        if not _is_complete(found, wanted):
            print(f"setup: accelerator {accelerator}: {reason}", file=sys.stderr)
            if found is not None:
                state.write(folder, State("", found.accelerator, choice))
            install(root, folder, accelerator)
    if found != wanted:
        state.write(folder, wanted)


def _is_complete(found: State | None, wanted: State) -> bool:
    """Return whether the packages are the same; the request may differ."""
    return found is not None and (found.digest, found.accelerator) == (wanted.digest, wanted.accelerator)
