"""python hack/node COMMAND: a real Kubernetes with one real node on this machine, for tests and for use by hand. It needs root.

packages  install missing packages of the system
build     build its programs from Go modules (minutes, the first time), and print their folder
up        start one, empty, and leave it running; tests of the same checkout use it
load      load the images of archives
status    print its processes and its kubeconfig
down      stop it and remove everything of it
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn, get_args

from build_error import CannotBuildError
from controlplane import sessions
from controlplane.api import RefusedError, eventually
from controlplane.binaries import build as build_control_plane
from controlplane.cluster import Access, DidNotStartError
from controlplane.programs import API_SERVER, GENERATIONS, GenerationName

from . import machine, volumes
from .cluster import NodeCluster, default_state
from .namespaces import below
from .programs import build


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    options = _parser().parse_intermixed_args(arguments)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return _COMMANDS[options.command](options)
    except (CannotBuildError, DidNotStartError, RefusedError, OSError, ValueError) as error:
        print(f"node: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python hack/node", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=list(_COMMANDS), metavar="{packages,build,up,load,status,down}")
    parser.add_argument("archives", nargs="*", type=Path, help="image archives to load, OCI's or Docker's; up takes them too")
    parser.add_argument("--trainer", choices=get_args(GenerationName), default="2.1", help="release of Kubeflow Trainer (2.1)")
    parser.add_argument("--state", type=Path, help="folder of everything that runs (.cache/node/<trainer>)")
    parser.add_argument("--nice", type=int, default=0, help="nice level of the build, 1 to 19")
    return parser


def _packages(_options: argparse.Namespace) -> int:
    installed = machine.install_packages()
    print(f"installed {', '.join(installed)}" if installed else "nothing is missing")
    return 0


def _build(options: argparse.Namespace) -> int:
    print(build(options.nice).folder)
    return 0


def _up(options: argparse.Namespace) -> int:
    if (blocker := machine.blocker()) is not None:
        raise ValueError(blocker)
    generation = GENERATIONS.get(options.trainer)
    binaries = build_control_plane(generation, options.nice)
    build(options.nice)
    cluster, began = _cluster(options), time.monotonic()
    with cluster.locked():
        sessions.release(cluster)
        access = cluster.runs(binaries, generation) or cluster.up(binaries, generation)
    print(f"{_what(access)}, after {time.monotonic() - began:.1f} s\nexport KUBECONFIG={access.kubeconfig}")
    return _load(options)


def _load(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    for archive in options.archives:
        print("loaded", ", ".join(cluster.load(archive)))
    return 0


def _status(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    for process in cluster.processes.recorded():
        memory = f"{below(process).resident_mb:5.0f} MB" if process.alive else "   ended"
        print(f"{process.name:26} {process.pid:>8} {memory}  {cluster.processes.log(process.name)}")
    access = cluster.access
    print("no node runs here" if access is None else f"{_what(access)}\nexport KUBECONFIG={access.kubeconfig}")
    return 0 if access is not None else 3


def _down(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    with cluster.locked():
        sessions.release(cluster)
        cluster.down()
        shutil.rmtree(cluster.state)
    return 0


def _keep(options: argparse.Namespace) -> int:
    sessions.keep(_cluster(options))
    return 0


def _volumes(options: argparse.Namespace) -> int:
    cluster = _cluster(options)
    eventually(lambda: cluster.access is not None, "the control plane is there")
    with cluster.api() as api:
        volumes.keep(api, cluster.folder / "volumes")
    return 0


_COMMANDS = {
    "packages": _packages, "build": _build, "up": _up, "load": _load, "status": _status, "down": _down,
    "keep": _keep, "volumes": _volumes,
}  # fmt: skip


def _cluster(options: argparse.Namespace) -> NodeCluster:
    return NodeCluster((options.state or default_state(options.trainer)).absolute())


def _what(access: Access) -> str:
    return f"Kubernetes {API_SERVER.version.removeprefix('v')} with a node, Trainer {access.trainer}, at {access.address}"


def _terminated(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(143)
