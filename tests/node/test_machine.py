"""If no node can run, one sentence states why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from node import machine

ASK = "import os, sys; from node import machine; os.seteuid(int(sys.argv[1])); print(machine.blocker())"


def blocker(user: int, **environment: str) -> str:
    """Return the message to a process of that user with that environment."""
    command = [sys.executable, "-c", ASK, str(user)]
    place = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "hack"), **environment}
    return subprocess.run(command, env=place, capture_output=True, text=True, check=True).stdout.strip()


def test_without_root_there_is_no_node(machine_for_nodes: None) -> None:
    assert blocker(65534) == "a node needs root, for namespaces, mounts and cgroups: run the tests as root to have it"


def test_missing_packages_are_named(machine_for_nodes: None) -> None:
    told = blocker(0, PATH="/nonexistent")
    assert told.startswith("a node needs the packages containerd, ")
    assert told.endswith(": python hack/node packages installs them")


def test_packages_that_are_there_are_not_installed(machine_for_nodes: None) -> None:
    assert machine.install_packages() == []


def test_the_command_names_what_is_missing_and_shows_no_traceback(machine_for_nodes: None, tmp_path: Path) -> None:
    command = [sys.executable, "hack/node", "up", "--state", str(tmp_path / "none")]
    place = {**os.environ, "PATH": "/nonexistent"}
    done = subprocess.run(command, env=place, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("node: a node needs the packages containerd")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", ["load", "status"])
def test_commands_without_a_node_report_it(command: str, machine_for_nodes: None, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    archive.touch()
    words = [command, *([str(archive)] if command == "load" else []), "--state", str(tmp_path / "none")]
    done = subprocess.run(
        [sys.executable, "hack/node", *words], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert done.returncode in (1, 3)
    assert "no node runs" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
