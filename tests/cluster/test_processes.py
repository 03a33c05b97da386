"""Starting and ending: whatever becomes of who started it, nothing stays behind, and nobody else is harmed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_planes import built, skip_without_go
from controlplane import cluster
from controlplane.api import eventually
from controlplane.binaries import find
from controlplane.cluster import ROOT, ControlPlane
from controlplane.ports import free_ports
from controlplane.processes import Process, Processes

PYTHON = sys.executable
SLEEP = [PYTHON, "-c", "print('up', flush=True); import time; time.sleep(60)"]
STUBBORN = [PYTHON, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"]
JOIN = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from controlplane import binaries, cluster, sessions
sessions.join(cluster.ControlPlane(Path(sys.argv[2])), binaries.find(None), "none")
print("joined", flush=True)
time.sleep(60)
"""


def start(processes: Processes, name: str, command: list[str]) -> Process:
    process = processes.start(name, command)
    eventually(lambda: "up" in processes.log(name).read_text(), f"{name} is up")
    return process


def of(state: Path) -> list[str]:
    """The command lines of all processes that name the folder."""
    lines = subprocess.run(["ps", "-ww", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if str(state) in line and str(os.getpid()) != line.split()[0]]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    skip_without_go()
    folder = tmp_path / "state"
    yield folder
    plane = ControlPlane(folder)
    with plane.locked():
        plane.down()


def test_processes_end_when_asked_or_when_their_time_is_up(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    willing, stubborn = start(processes, "willing", SLEEP), start(processes, "stubborn", STUBBORN)
    assert willing.resident_mb > 1
    processes.stop([willing], grace=30)
    assert (willing.alive, stubborn.alive) == (False, True)
    assert [one.name for one in processes.recorded()] == ["stubborn"]
    processes.stop([stubborn], grace=0.2)
    assert not stubborn.alive
    assert processes.recorded() == []


def test_a_process_that_only_got_the_pid_is_left_alone(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    stranger = start(processes, "stranger", SLEEP)
    former = Process("former", stranger.pid, "1")
    former.write(tmp_path / "pids" / "former.pid")
    assert Process.read(tmp_path / "pids" / "former.pid") == former
    processes.stop([former], grace=0.2)
    assert (former.alive, stranger.alive) == (False, True)
    processes.stop([stranger], grace=30)


def test_a_program_that_ended_at_once_is_known_as_ended(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.start("brief", [PYTHON, "-c", "print('no such flag')"])
    eventually(lambda: not processes.recorded()[0].alive, "it ends")
    assert processes.log_tail("brief") == "no such flag"


def test_a_port_that_somebody_took_meanwhile(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        taken = somebody.getsockname()[1]
        chosen = iter([[taken, *free_ports(2)], free_ports(3)])
        monkeypatch.setattr(cluster, "free_ports", lambda _count: next(chosen))
        plane = ControlPlane(state)
        with plane.locked():
            plane.up(built(lambda: find(None)), None)
    assert next(chosen, None) is None
    with plane.api() as api:
        assert api.call("GET", "/readyz") == {"text": "ok"}


def test_nothing_outlives_a_test_run_that_was_killed(state: Path) -> None:
    command = [PYTHON, "-c", JOIN, str(ROOT / "hack"), str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "joined\n"
        names = sorted(process.name for process in ControlPlane(state).processes.recorded())
        assert names == ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
        assert len(of(state)) >= len(names)
        user.kill()
    eventually(lambda: of(state) == [], "the keeper has ended everything, and itself")


def test_a_start_that_is_interrupted_leaves_nothing(state: Path) -> None:
    command = [PYTHON, str(ROOT / "hack" / "controlplane"), "up", "--trainer", "none", "--state", str(state)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as up:
        eventually(lambda: any("kube-apiserver" in line for line in of(state)), "the API server is starting")
        up.send_signal(signal.SIGTERM)
        assert up.wait(30) == 143
    assert of(state) == []


def test_what_a_killed_command_left_is_ended_by_the_next(state: Path) -> None:
    command = [PYTHON, str(ROOT / "hack" / "controlplane"), "up", "--trainer", "none", "--state", str(state)]
    with subprocess.Popen(command) as up:
        eventually(lambda: any("kube-apiserver" in line for line in of(state)), "the API server is starting")
        up.kill()
    left = of(state)
    assert left
    began = time.monotonic()
    subprocess.run([*command[:2], "down", "--state", str(state)], check=True)
    assert of(state) == []
    assert time.monotonic() - began < 20
