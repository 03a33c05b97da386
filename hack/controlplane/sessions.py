"""One control plane for all test processes of a checkout: the first that needs it starts it, and it ends with the last.

A process says that it uses the control plane with a pid file. A keeper, a process of its own, looks whether any of them is still alive,
so that nothing stays behind a test run that was killed. A control plane that a person started with ``up`` has no keeper: tests use it
and leave it running.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from .binaries import Binaries
from .cluster import ROOT, Access, ControlPlane, own_definitions
from .processes import Process, Processes
from .programs import GENERATIONS, GenerationName
from .trainer import install

_LOOK_SECONDS = 0.3


def default_state(generation: GenerationName) -> Path:
    """Where the control plane of this checkout lives, for tests and for people."""
    return ROOT / ".cache" / "controlplane" / generation


def join(plane: ControlPlane, binaries: Binaries, generation: GenerationName, user: int | None = None) -> Access:
    """Use ``plane`` until :func:`leave`, or until the process ``user`` (this one) ends; it is started if it does not run.

    Raises:
        DidNotStartError: a program ended at once.
        TimeoutError: a program did not become ready.
    """
    with plane.locked():
        user = user or os.getpid()
        _users(plane).mkdir(exist_ok=True)
        Process.of("user", user).write(_users(plane) / f"{user}.pid")
        access = plane.runs(binaries, GENERATIONS.get(generation))
        if access is None:
            _start_keeper(plane)
            return plane.up(binaries, GENERATIONS.get(generation))
        if _has_keeper(plane):
            _start_keeper(plane)
        with plane.api() as api:  # they may have changed since
            install(api, own_definitions())
        return access


def leave(plane: ControlPlane, user: int | None = None) -> None:
    """Use ``plane`` no longer; the last one stops it, unless a person started it."""
    with plane.locked():
        (_users(plane) / f"{user or os.getpid()}.pid").unlink(missing_ok=True)
        if _has_keeper(plane) and not _any_user(plane):
            plane.down()


def keep(plane: ControlPlane) -> None:
    """The keeper's life: until nobody uses the control plane, or it is no longer the keeper."""
    while True:
        with plane.locked():
            keeper = Process.read(_keeper_file(plane))
            if keeper is None or keeper.pid != os.getpid():
                return
            if not _any_user(plane):
                plane.down()
                release(plane)
                return
        time.sleep(_LOOK_SECONDS)


def release(plane: ControlPlane) -> None:
    """Let the keeper go: from now on a person says when the control plane ends. The caller holds the lock."""
    _keeper_file(plane).unlink(missing_ok=True)


def _start_keeper(plane: ControlPlane) -> None:
    keeper = Process.read(_keeper_file(plane))
    if keeper is None or not keeper.alive:
        command: list[str | Path] = [sys.executable, plane.program, "keep", "--state", plane.state]
        Processes(_keeper_file(plane).parents[1]).start("keeper", command)


def _has_keeper(plane: ControlPlane) -> bool:
    """Whether it was started for tests. The keeper itself may have been killed."""
    return _keeper_file(plane).exists()


def _any_user(plane: ControlPlane) -> bool:
    """Whether anybody who uses it is alive; the files of the dead are removed."""
    found = False
    for path in _users(plane).glob("*.pid"):
        user = Process.read(path)
        if user is not None and user.alive:
            found = True
        else:
            path.unlink()
    return found


def _users(plane: ControlPlane) -> Path:
    return plane.state / "users"


def _keeper_file(plane: ControlPlane) -> Path:
    return plane.state / "keeper" / "pids" / "keeper.pid"
