"""Which packages a machine gets, and when the environment is recreated."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from bootstrap import accelerator, state
from bootstrap.accelerator import Accelerator, Choice, ChoiceError, resolve
from bootstrap.state import State

ROOT = Path(__file__).parents[3]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The command, with the installation replaced by a list of calls: a real one takes minutes."""
    monkeypatch.syspath_prepend(str(ROOT / "images" / "build"))
    module = importlib.import_module("bootstrap.command")
    monkeypatch.setattr(module, "calls", [], raising=False)
    monkeypatch.setattr(module, "install", lambda _root, _folder, found: module.calls.append(found))
    monkeypatch.setattr(accelerator, "missing_tools", lambda: iter(()))
    monkeypatch.setattr(accelerator, "has_driver", lambda _root: False)
    for name in ("environment", "cuda_placeholders"):
        monkeypatch.delitem(sys.modules, name, raising=False)  # other tests load these files by themselves
    return module


def tools(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).touch(mode=0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("driver", "programs", "choice", "platform", "expected", "words"),
    [
        ("", "cc readelf nm", "auto", "linux", "cpu", "no NVIDIA driver"),
        ("", "gcc readelf nm", "auto", "linux", "cpu", "no NVIDIA driver"),
        ("dev/nvidia0", "cc readelf nm", "auto", "linux", "cuda", "has an NVIDIA driver"),
        ("dev/nvidiactl", "", "auto", "linux", "cuda", "has an NVIDIA driver"),
        ("proc/driver/nvidia", "cc readelf nm", "auto", "linux", "cuda", "has an NVIDIA driver"),
        ("usr/lib/wsl/lib/libcuda.so.1", "cc readelf nm", "auto", "linux", "cuda", "has an NVIDIA driver"),
        ("", "", "auto", "linux", "cuda", "without cc or gcc, readelf and nm nothing can take the place of NVIDIA's libraries"),
        ("", "readelf nm", "auto", "linux", "cuda", "without cc or gcc nothing"),
        ("", "", "cuda", "linux", "cuda", "requested"),
        ("dev/nvidia0", "cc readelf nm", "cpu", "linux", "cpu", "requested"),
        ("", "", "auto", "darwin", "cpu", "do not exist for darwin"),
        ("", "", "cuda", "darwin", "cpu", "do not exist for darwin"),
    ],
)
def test_the_driver_and_the_compiler_decide(
    driver: str, programs: str, choice: Choice, platform: str, expected: Accelerator, words: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / driver).mkdir(parents=True, exist_ok=True)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", tools(tmp_path / "bin", *programs.split()))
    found, reason = resolve(choice, tmp_path, platform)
    assert (found, words in reason) == (expected, True), reason


def test_placeholders_that_cannot_be_compiled_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", tools(tmp_path, "cc"))
    with pytest.raises(ChoiceError) as rejected:
        resolve("cpu", tmp_path, "linux")
    assert str(rejected.value) == (
        "ACCELERATOR=cpu: readelf and nm cannot be found, which the placeholders of NVIDIA's libraries are compiled with; "
        "install gcc and binutils, or set ACCELERATOR=cuda"
    )


def test_an_environment_is_made_once_and_again_for_another_accelerator(command: ModuleType, tmp_path: Path) -> None:
    steps: list[tuple[Choice | None, list[Accelerator]]] = [
        (None, ["cpu"]), (None, []), ("cuda", ["cuda"]), (None, []), ("auto", ["cpu"]), ("cpu", []), (None, []),
    ]  # fmt: skip
    for requested, expected in steps:
        command.calls.clear()
        command._set_up(ROOT, tmp_path, requested)
        assert command.calls == expected, requested
    assert state.read(tmp_path) == State(state.digest(ROOT), "cpu", "cpu")


@pytest.mark.parametrize("requested", ["cpu", "auto"])
def test_a_complete_environment_needs_no_compiler(
    requested: Choice, command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command._set_up(ROOT, tmp_path, requested)
    with monkeypatch.context() as patch:
        patch.setattr(accelerator, "missing_tools", lambda: iter(("nm",)))
        for again in (None, requested):
            command._set_up(ROOT, tmp_path, again)
        assert command.calls == ["cpu"]
        assert state.read(tmp_path) == State(state.digest(ROOT), "cpu", requested)


def test_a_compiler_that_comes_later_leaves_the_libraries_out(
    command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(accelerator, "missing_tools", lambda: iter(("nm",)))
        for _ in range(2):
            command._set_up(ROOT, tmp_path, None)
        assert command.calls == ["cuda"]
    command._set_up(ROOT, tmp_path, None)
    assert command.calls == ["cuda", "cpu"]


def test_an_interrupted_set_up_is_done_again_and_keeps_the_request(
    command: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    command._set_up(ROOT, tmp_path, None)
    with monkeypatch.context() as patch:
        patch.setattr(command, "install", interrupted)
        with pytest.raises(KeyboardInterrupt):
            command._set_up(ROOT, tmp_path, "cuda")
    command.calls.clear()
    command._set_up(ROOT, tmp_path, None)
    assert command.calls == ["cuda"]


def test_a_changed_lock_and_an_unknown_stamp_recreate_it(command: ModuleType, tmp_path: Path) -> None:
    command._set_up(ROOT, tmp_path, None)
    document = json.loads((tmp_path / ".ready").read_text())
    for text in ("", "{}", "[]", json.dumps({**document, "digest": "other"}), json.dumps({**document, "choice": "tpu"})):
        (tmp_path / ".ready").write_text(text)
        command.calls.clear()
        command._set_up(ROOT, tmp_path, None)
        assert command.calls == ["cpu"], text


def test_a_wrong_accelerator_is_rejected_by_name(tmp_path: Path) -> None:
    words = [sys.executable, ROOT / "hack/bootstrap", "--accelerator=rocm"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "argument --accelerator: invalid choice: 'rocm'" in done.stderr


def test_the_command_needs_nothing_but_the_standard_library(tmp_path: Path) -> None:
    """It runs on the Python of the machine, before anything is installed."""
    program = "import runpy, sys; sys.argv[1:] = ['--help']; runpy.run_path(sys.argv[0], run_name='__main__')"
    words = [sys.executable, "-I", "-S", "-c", program.replace("sys.argv[0]", repr(str(ROOT / "hack/bootstrap")))]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]}, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python3 hack/bootstrap")
