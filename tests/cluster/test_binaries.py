"""Building: once, whole or not at all; what is there already is used."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from build_error import CannotBuildError
from control_planes import skip_without_go
from controlplane import binaries, programs
from controlplane.binaries import Binaries
from controlplane.programs import API_SERVER, CONTROLLER_MANAGER, Program

TINY = Program("tiny", "tiny", "example.com/tiny", "example.com/tiny")
WRAPPER = "module example.com/wrapper\n\ngo 1.24.0\n\nrequire example.com/tiny v1.0.0\n\nreplace example.com/tiny => ./source\n"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source of a program that, in this test, is the whole control plane."""
    skip_without_go()
    modules = tmp_path / "modules"
    (modules / "etcd").mkdir(parents=True)
    (modules / "tiny" / "source").mkdir(parents=True)
    (modules / "tiny" / "go.mod").write_text(WRAPPER)
    (modules / "tiny" / "source" / "go.mod").write_text("module example.com/tiny\n\ngo 1.24.0\n")
    main = modules / "tiny" / "source" / "main.go"
    main.write_text("package main\n\nfunc main() {}\n")
    for module in (binaries, programs):
        monkeypatch.setattr(module, "MODULES", modules)
    monkeypatch.setattr(binaries, "programs_of", lambda _generation: (TINY,))
    compiled = subprocess.run(["go", "env", "GOCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    monkeypatch.setenv("GOCACHE", compiled)  # what Go compiled of its own library, so that a build takes no time
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return main


def test_two_builds_at_once_are_one(source: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        (built,) = set(pool.map(lambda _: binaries.build(None), range(4)))
    assert os.access(built.path(TINY), os.X_OK)
    assert capfd.readouterr().err.splitlines().count("building tiny v1.0.0") == 1
    assert binaries.locate() == built


def test_an_unfinished_program_is_built_again(source: Path) -> None:
    folder = binaries.locate().folder
    folder.mkdir(parents=True)
    (folder / "tiny.part").write_bytes(b"half a program")
    assert not binaries.locate().has(None)
    assert binaries.build(None, nice=19).path(TINY).read_bytes().startswith(b"\x7fELF")
    assert [path.name for path in folder.iterdir()] == ["tiny"]


def test_a_program_that_does_not_compile_is_reported(source: Path) -> None:
    source.write_text("package main\n\nfunc main() { nothing() }\n")
    with pytest.raises(CannotBuildError, match=r"(?s)^tiny: go cannot build it: .*undefined: nothing"):
        binaries.build(None)
    assert list(binaries.locate().folder.iterdir()) == []


def test_other_modules_are_another_build(source: Path) -> None:
    before = binaries.locate()
    (source.parents[1] / "go.sum").write_text("example.com/other v1.0.0 h1:x\n")
    assert binaries.locate() != before


def test_assets_that_are_there_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in (API_SERVER, CONTROLLER_MANAGER):
        (tmp_path / program.name).touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    built = Binaries(tmp_path / "built")
    assert built.path(API_SERVER) == tmp_path / "kube-apiserver"
    assert built.path(CONTROLLER_MANAGER) == tmp_path / "built" / "kube-controller-manager"  # no folder of assets has one
