"""python hack/compat COMMAND: environments with the libraries of training images, and the tests that use them.

make    make the environments outside the checkout, 2 GB each
test    make them, and run tests/compat with every set; --record writes them into hack/compat/trainings.json
node    train in containers on a real node, in an image with the libraries of OpenShift AI 3.3 (as root; builds the image)
python  print the Python of one environment
clean   remove all environments, including those of earlier locks
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import progress
from build_error import CannotBuildError
from controlplane.binaries import NotBuiltError
from images import builds, engines
from images.recipes import LIBRARIES

from .environments import is_made, make, python, root
from .sets import SETS

ROOT = Path(__file__).resolve().parents[2]
_TIMEOUT = 900
"""Seconds of a test: two pods of Training Hub are eight processes with PyTorch."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except (CannotBuildError, NotBuiltError, OSError, subprocess.SubprocessError) as error:
        print(f"compat: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python hack/compat", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("make", "test", "node", "python", "clean"))
    parser.add_argument("sets", nargs="*", choices=[*SETS, []], metavar="SET", help=f"{', '.join(SETS)}; all if none is named")
    parser.add_argument("--record", action="store_true", help="write the trainings into hack/compat/trainings.json")
    parser.add_argument("--jobs", type=int, default=2, help="processes of pytest (2)")
    return parser


def _run(options: argparse.Namespace) -> int:
    command, sets = options.command, options.sets or list(SETS)
    if command == "clean":
        shutil.rmtree(root(), ignore_errors=True)
        return 0
    if command == "python":
        print("\n".join(str(python(name)) for name in sets))
        return 0
    if command == "node":
        return _node()
    missing = [name for name in sets if not is_made(name)]
    with progress.counted(len(missing)):
        for name in missing:
            make(name)
    return _test(sets, options.jobs, record=options.record) if command == "test" else 0


def _node() -> int:
    builds.build(LIBRARIES, "debian", "test", engines.find())
    words = [sys.executable, "-m", "pytest", "-q", "-rP", "tests/node/image_of_openshift_ai.py"]
    return subprocess.run(words, cwd=ROOT, check=False).returncode


def _test(sets: Sequence[str], jobs: int, *, record: bool) -> int:
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        str(jobs),
        "--dist",
        "worksteal",
        "--durations=20",
        "-o",
        f"timeout={_TIMEOUT}",
        "tests/compat",
    ]
    environment = {**os.environ, "FINETUNE_COMPAT_SETS": ",".join(sets), "OMP_NUM_THREADS": "1"}
    if record:
        environment["FINETUNE_COMPAT_RECORD"] = "1"
    return subprocess.run(words, cwd=ROOT, env=environment, check=False).returncode
