"""python hack/controlplane COMMAND: a real Kubernetes control plane on this machine, for tests and for use by hand.

up       start one, empty, and leave it running; tests of the same checkout use it
down     stop it
status   print its processes and its kubeconfig
reset    empty it
build    build its programs (15 minutes the first time), and print their folder
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn, cast, get_args

from build_error import CannotBuildError

from . import sessions
from .api import RefusedError
from .binaries import build, build_all
from .cluster import Access, ControlPlane, DidNotStartError
from .programs import API_SERVER, GENERATIONS, GenerationName, programs_of
from .trainer import Limits


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return _COMMANDS[options.command](options)
    except (CannotBuildError, DidNotStartError, RefusedError, OSError, ValueError) as error:
        print(f"control plane: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python hack/controlplane", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=list(_COMMANDS), metavar="{up,down,status,reset,build}")
    parser.add_argument("--trainer", choices=get_args(GenerationName), default="2.1", help="release of Kubeflow Trainer (2.1)")
    parser.add_argument("--state", type=Path, help="folder of everything that runs (.cache/controlplane/<trainer>)")
    parser.add_argument("--kube-api-qps", type=int, help="calls a second that each controller may make, for benchmarks")
    parser.add_argument("--kube-api-burst", type=int, help="calls that it may make at once (twice as many)")
    parser.add_argument(
        "--audit", type=Path, metavar="FILE", help="write each request to the API server into this file, for benchmarks"
    )
    parser.add_argument("--nice", type=int, default=0, help="nice level of the build, 1 to 19")
    return parser


def _up(options: argparse.Namespace) -> int:
    binaries = build(GENERATIONS.get(options.trainer), options.nice)
    plane, began = _plane(options), time.monotonic()
    with plane.locked():
        sessions.release(plane)
        access = plane.runs(binaries, GENERATIONS.get(options.trainer))
        if access is None or options.kube_api_qps or options.audit:
            access = plane.up(binaries, GENERATIONS.get(options.trainer), _limits(options), options.audit)
    print(f"{_what(access)}, after {time.monotonic() - began:.1f} s\nexport KUBECONFIG={access.kubeconfig}")
    return 0


def _down(options: argparse.Namespace) -> int:
    plane = _plane(options)
    with plane.locked():
        sessions.release(plane)
        plane.down()
    return 0


def _reset(options: argparse.Namespace) -> int:
    plane, began = _plane(options), time.monotonic()
    with plane.locked():
        access = plane.reset()
    print(f"{_what(access)}, empty after {time.monotonic() - began:.1f} s\nexport KUBECONFIG={access.kubeconfig}")
    return 0


def _status(options: argparse.Namespace) -> int:
    plane = _plane(options)
    for process in plane.processes.recorded():
        memory = f"{process.resident_mb:5.0f} MB" if process.alive else "   ended"
        print(f"{process.name:26} {process.pid:>8} {memory}  {plane.processes.log(process.name)}")
    access = plane.access
    print("no control plane runs here" if access is None else f"{_what(access)}\nexport KUBECONFIG={access.kubeconfig}")
    return 0 if access is not None else 3


def _build(options: argparse.Namespace) -> int:
    print(build_all(options.nice).folder)
    return 0


def _keep(options: argparse.Namespace) -> int:
    sessions.keep(_plane(options))
    return 0


_COMMANDS = {"up": _up, "down": _down, "status": _status, "reset": _reset, "build": _build, "keep": _keep}


def _plane(options: argparse.Namespace) -> ControlPlane:
    return ControlPlane((options.state or sessions.default_state(cast(GenerationName, options.trainer))).absolute())


def _limits(options: argparse.Namespace) -> Limits | None:
    return (
        None if options.kube_api_qps is None else Limits(options.kube_api_qps, options.kube_api_burst or 2 * options.kube_api_qps)
    )


def _what(access: Access) -> str:
    generation = GENERATIONS.get(access.trainer)
    more = () if generation is None else programs_of(generation)[-2:]
    versions = ", ".join(f"{one.name.partition('-')[0]} {one.version.removeprefix('v')}" for one in more)
    return f"Kubernetes {API_SERVER.version.removeprefix('v')}{', ' if versions else ''}{versions} at {access.address}"


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(143)
