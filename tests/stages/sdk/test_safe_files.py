"""What another program can leave in place of a file in the volume, and the reaction of a stage."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune_contract.workspace import SENTINEL, Attempt, RunLayout
from finetune_stages.sdk.fault import StageError
from finetune_stages.sdk.identity import require_content, require_settings
from finetune_stages.sdk.logs import tee_output
from finetune_stages.sdk.program import _require_own_folders
from finetune_stages.sdk.reuse import _folder
from finetune_stages.sdk.safe_files import NotRegular, create_file, read_bounded
from finetune_stages.sdk.workspace import content_digest, read_seal, seal_directory, verify_seal, write_file
from finetune_stages.sources.work_folder import work_folder


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """Fail instead of waiting forever: each of these inputs blocked, or had no end."""

    def late(_signal: int, _frame: Any) -> None:
        raise AssertionError("it takes more than 10 seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(path))


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def folder(path: Path) -> None:
    path.mkdir()


PLANTED = [pipe, device, listening, loop]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    model = tmp_path / "m"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_text("w")
    seal_directory(model)
    return model


@pytest.mark.parametrize("plant", PLANTED)
def test_a_file_of_another_type_is_not_read(model: Path, plant: Callable[[Path], None]) -> None:
    seal = read_seal(model)
    assert seal is not None
    plant(model / "x")
    with pytest.raises(OSError, match=r"x|Too many levels"):
        content_digest(model)
    context: Any = SimpleNamespace(report=lambda _progress: None)
    for check in (lambda: require_content(context, model, seal, "training"), lambda: require_settings(model, seal, "training")):
        with pytest.raises(StageError, match="x is not in its seal; rerun from stage training") as error:
            check()
        assert error.value.reason.name == "ModelChanged"


@pytest.mark.parametrize("plant", PLANTED)
def test_a_file_of_the_seal_that_becomes_something_else(model: Path, plant: Callable[[Path], None]) -> None:
    seal = read_seal(model)
    assert seal is not None
    (model / "config.json").unlink()
    plant(model / "config.json")
    assert verify_seal(model) is None
    with pytest.raises(StageError, match=r"config.json (is not a regular file|cannot be read)"):
        require_content(SimpleNamespace(), model, seal, "training")  # type: ignore[arg-type]


def test_a_file_that_grew_is_not_read(model: Path) -> None:
    seal = read_seal(model)
    assert seal is not None
    os.truncate(model / "model.safetensors", 2**40)
    with pytest.raises(StageError, match=r"model.safetensors has 1,099,511,627,776 bytes, and its seal has 1;"):
        require_content(SimpleNamespace(), model, seal, "training")  # type: ignore[arg-type]


@pytest.mark.parametrize("plant", [*PLANTED, folder])
def test_a_seal_of_another_type_is_no_seal(model: Path, plant: Callable[[Path], None]) -> None:
    (model / SENTINEL).unlink()
    plant(model / SENTINEL)
    assert read_seal(model) is None


@pytest.mark.parametrize(
    "content", ["[" * 200_000, "{", '{"files": {}, "digest": "x", "note": {"a": NaN}}', " " * (17 << 20) + "{}"]
)
def test_a_malformed_seal_is_no_seal(model: Path, content: str) -> None:
    (model / SENTINEL).write_text(content)
    assert read_seal(model) is None


def test_a_file_beyond_its_limit_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_bounded(tmp_path / "a", 4)
    with pytest.raises(NotRegular):
        read_bounded(tmp_path, 4)


def test_a_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("OLD")
    (tmp_path / f".x.json.{os.getpid()}").symlink_to("victim")
    write_file(tmp_path / "x.json", b"NEW")
    assert (tmp_path / "victim").read_text() == "OLD"
    assert not (tmp_path / "x.json").is_symlink()
    assert (tmp_path / "x.json").read_text() == "NEW"
    (tmp_path / "link").symlink_to("victim")
    with create_file(tmp_path / "link") as stream:
        stream.write(b"NEW")
    assert (tmp_path / "victim").read_text() == "OLD"


@pytest.mark.parametrize("plant", [lambda log: log.symlink_to("victim"), os.mkfifo], ids=["link", "pipe"])
def test_a_log_is_written_to_a_file_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Callable[[Path], None]
) -> None:
    (tmp_path / "victim").write_text("OLD")
    plant(tmp_path / "log")
    monkeypatch.setattr("sys.stdout", SimpleNamespace(write=lambda _text: None, flush=lambda: None))
    monkeypatch.setattr("sys.stderr", SimpleNamespace(write=lambda _text: None, flush=lambda: None))
    tee_output(tmp_path / "log", lambda text: text)
    print("line")
    sys.stdout._file.close()  # type: ignore[attr-defined]
    assert (tmp_path / "victim").read_text() == "OLD"
    assert (tmp_path / "log").read_text() == "line\n"


def context_of(workspace: Path) -> Any:
    return SimpleNamespace(
        workspace=workspace, layout=RunLayout("runs/demo"), attempt=Attempt(1, 2), document=SimpleNamespace(stage="model"),
        path=lambda relative: workspace / relative,
    )  # fmt: skip


@pytest.mark.parametrize(
    "linked",
    [
        "runs/demo",
        "runs/demo/attempts",
        "runs/demo/attempts/model",
        "runs/demo/attempts/model/1.2",
        "runs/demo/results",
        "runs/demo/logs",
    ],
)
def test_a_link_in_place_of_a_folder_of_the_run_is_rejected(tmp_path: Path, linked: str) -> None:
    _require_own_folders(context_of(tmp_path))
    (tmp_path / "other").mkdir()
    (tmp_path / linked).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / linked).symlink_to(tmp_path / "other")
    with pytest.raises(StageError, match=f"workspace: {linked} is a symbolic link") as error:
        _require_own_folders(context_of(tmp_path))
    assert error.value.reason.name == "WorkspaceNotWritable"


def test_a_linked_attempt_is_removed_and_what_it_leads_to_is_not(tmp_path: Path) -> None:
    other = tmp_path / "other"
    for name in ("hub", "reused"):
        (other / name).mkdir(parents=True)
        (other / name / "mine").touch()
    attempts = tmp_path / "runs/demo/attempts/model"
    for use in (lambda: work_folder(context_of(tmp_path), resume="hub"), lambda: _folder(context_of(tmp_path), publishing=True)):
        attempts.mkdir(parents=True, exist_ok=True)
        (attempts / "1.1").symlink_to(other)
        with use() as found:
            assert found is not None
            assert list(found.iterdir()) == []
        assert not (attempts / "1.1").is_symlink()
    (attempts / "1.2").mkdir(exist_ok=True)
    (attempts / "1.2/hub").symlink_to(other / "hub")
    with work_folder(context_of(tmp_path), resume="hub") as found:
        assert list(found.iterdir()) == []
    assert all((other / name / "mine").is_file() for name in ("hub", "reused"))
