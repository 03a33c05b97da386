"""python hack/prerequisites GROUP...: build missing prerequisites of tests outside the checkout.

bytecode      byte code of all packages of .venv
controlplane  Kubernetes, JobSet, Trainer, crdlint, Argo CD's command and an S3 server from Go modules; the models of Trainer's releases
containers    Debian packages, a kubelet and the images, where containers can run: as root, with apt-get
compat        the libraries of the oldest supported training image and the newest ones, with a C compiler
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

import progress
from build_error import CannotBuildError

from .groups import GROUPS, Step

_FAULTS = (CannotBuildError, OSError, subprocess.SubprocessError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return 1 if a step failed. The other steps run nevertheless."""
    options = _parser().parse_args(arguments)
    try:
        return _make(_missing(options.groups, options.nice))
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python hack/prerequisites", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="+", choices=list(GROUPS), metavar="GROUP")
    parser.add_argument("--nice", type=int, default=0, help="nice level of compilers, 1 to 19")
    return parser


def _missing(groups: Sequence[str], nice: int) -> list[Step]:
    """Return the missing steps, and print the groups that this machine cannot build."""
    found: list[Step] = []
    for name in groups:
        if (blocker := GROUPS[name].blocker()) is not None:
            print(f"{name}: {blocker}", file=sys.stderr)
            continue
        found += [step for step in GROUPS[name].steps(nice) if not step.is_done()]
    return found


def _make(steps: Sequence[Step]) -> int:
    """Run steps, and return 1 if one failed."""
    if steps:
        seconds = progress.estimate([step.key for step in steps])
        print(f"{len(steps)} to build{f'; they took {_duration(seconds)} here last time' if seconds else ''}", file=sys.stderr)
    failed: list[str] = []
    for number, step in enumerate(steps, 1):
        try:
            with progress.counted(len(steps), number):
                step.make()
        except _FAULTS as error:
            print(f"[{number}/{len(steps)}] {step.key}: {error}", file=sys.stderr)
            failed.append(step.key)
    if failed:
        print(f"not built: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
