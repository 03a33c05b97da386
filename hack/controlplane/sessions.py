"""One control plane for all test processes of a checkout: the first one starts it, and it ends with the last one.

A process that uses the control plane has a pid file. A keeper, which is a separate process, polls whether any of them is alive, so that
nothing is left after a test run that was killed. A control plane that a person started with ``up`` has no keeper: tests use it
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

_POLL_SECONDS = 0.3


def default_state(generation: GenerationName) -> Path:
    """Return the folder of the control plane of this checkout, for tests and for use by hand."""
    return ROOT / ".cache" / "controlplane" / generation


def join(plane: ControlPlane, binaries: Binaries, generation: GenerationName, user: int | None = None) -> Access:
    """Use ``plane`` until :func:`leave`, or until the process ``user`` (this one) ends; start it if it does not run.

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
        with plane.api() as api:  # the definitions may have changed
            install(api, own_definitions())
        return access


def leave(plane: ControlPlane, user: int | None = None) -> None:
    """Stop using ``plane``; the last user stops it, unless a person started it."""
    with plane.locked():
        (_users(plane) / f"{user or os.getpid()}.pid").unlink(missing_ok=True)
        if _has_keeper(plane) and not _any_user(plane):
            plane.down()


def keep(plane: ControlPlane) -> None:
    """Run the keeper until no process uses the control plane, or another keeper replaces it."""
    while True:
        with plane.locked():
            keeper = Process.read(_keeper_file(plane))
            if keeper is None or keeper.pid != os.getpid():
                return
            if not _any_user(plane):
                plane.down()
                release(plane)
                return
        time.sleep(_POLL_SECONDS)


def release(plane: ControlPlane) -> None:
    """End the keeper, so that the control plane runs until ``down``. The caller holds the lock."""
    _keeper_file(plane).unlink(missing_ok=True)


def _start_keeper(plane: ControlPlane) -> None:
    keeper = Process.read(_keeper_file(plane))
    if keeper is None or not keeper.alive:
        command: list[str | Path] = [sys.executable, plane.program, "keep", "--state", plane.state]
        Processes(_keeper_file(plane).parents[1]).start("keeper", command)


def _has_keeper(plane: ControlPlane) -> bool:
    """Return whether it was started for tests. The keeper itself may have been killed."""
    return _keeper_file(plane).exists()


def _any_user(plane: ControlPlane) -> bool:
    """Return whether a process that uses it is alive, and remove the files of others."""
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
