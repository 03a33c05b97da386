"""Reuse of a result by another run: it is found, verified, linked, and published completely or not at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.codec import digest, encode
from finetune_contract.documents import StageDocument
from finetune_stages.sdk import verify_seal

from . import plain_stage
from .plain_stage import stage_inputs

EVERYTHING = ("adapter", "checkpoints/epoch_1", "checkpoints/epoch_2", "results/notes-training.a.txt")


def test_another_run_takes_the_result_over(stage: Any) -> None:
    inputs = stage_inputs(*EVERYTHING)
    first = stage(inputs)
    assert (first.code, first.result.reused) == (0, False), first.errors
    mine, published = stage.folder, stage.published()
    stage.as_run("b")
    second = stage(inputs)
    assert (second.code, second.result.reused) == (0, True), second.errors
    assert stage.worked() == ["run-a"]
    assert second.result.outputs == first.result.outputs
    assert second.result.history == first.result.history
    assert {**second.result.metrics, "seconds": 0} == {**first.result.metrics, "seconds": 0}
    assert second.result.message == "the same as run run-a: made"
    assert stage.published() == published
    assert (stage.folder / "final_model/weights.bin").samefile(mine / "final_model/weights.bin")
    assert not any(path.is_symlink() for path in stage.folder.rglob("*"))
    assert json.loads((stage.folder / "results/training.json").read_text())["reused"] is True
    assert "the same as run run-a" in (stage.folder / "pipeline_log.txt").read_text()
    assert [path.name for path in (stage.folder / "attempts/training").iterdir()] == ["current"]


def test_a_result_outlives_the_run_that_made_it(stage: Any) -> None:
    inputs = stage_inputs(*EVERYTHING)
    stage(inputs)
    first, published = stage.folder, stage.published()
    stage.as_run("b")
    stage(inputs)
    shutil.rmtree(first)
    assert stage.published() == published
    assert all(verify_seal(stage.folder / name) for name in ("final_model", *EVERYTHING[:3]))
    stage.as_run("c")
    third = stage(inputs)
    assert (third.result.reused, third.result.message) == (True, "the same as run run-a: made")
    for letter in "bc":
        stage.as_run(letter)
        shutil.rmtree(stage.folder)
    stage.as_run("d")
    fourth = stage(inputs)
    assert (fourth.code, fourth.result.reused) == (0, False)
    assert "its final_model is gone or damaged: the work is done again" in fourth.output
    assert stage.worked() == ["run-a", "run-d"]


def flip(path: Path) -> None:
    """Change a byte in the middle, in place, which also damages links to the file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name",
    [
        "final_model/weights.bin", "final_model/inner/config.json", "adapter/weights.bin", "checkpoints/epoch_2/weights.bin",
        "final_model/.finetune.json", "results/notes-training.a.txt",
    ],
)  # fmt: skip
def test_damage_is_detected_and_the_work_done_again(stage: Any, name: str) -> None:
    inputs = stage_inputs(*EVERYTHING)
    stage(inputs)
    published = stage.published()
    flip(stage.folder / name)
    stage.as_run("b")
    again = stage(inputs)
    assert (again.code, again.result.reused) == (0, False), again.errors
    assert (
        f"run run-a has a result for the same inputs, but its {name.partition('/weights')[0].partition('/inner')[0].removesuffix('/.finetune.json')}"
        in again.output
    )
    assert stage.published() == published
    stage.as_run("c")
    assert stage(inputs).result.message == "the same as run run-b: made"


def test_a_damaged_record_is_ignored(stage: Any) -> None:
    inputs = stage_inputs("adapter")
    stage(inputs)
    (record,) = stage.programs.path("cache/results/training").iterdir()
    assert record.name == f"{digest(inputs)}.json"
    sound = record.read_bytes()
    for damaged in (sound.replace(b'"loss": 0.25', b'"loss": 0.26'), sound[:100], b"[]", sound.replace(b"run-a", b"run-z")):
        assert damaged != sound
        record.write_bytes(damaged)
        stage.as_run("b")
        again = stage(inputs)
        assert (again.code, again.result.reused, again.result.metrics["loss"]) == (0, False, 0.25)
        assert "the work is done again" in again.output
        assert json.loads(record.read_bytes())["record"]["run"] == "run-b"
        shutil.rmtree(stage.folder)


@pytest.mark.parametrize("part", ["files", "seal"])
def test_no_path_leads_out_of_the_workspace(stage: Any, part: str) -> None:
    """The volume has other writers: the paths in a record or a seal must be below the run's folder."""
    inputs = stage_inputs("results/notes-training.a.txt")
    stage(inputs)
    note = stage.folder / "results/notes-training.a.txt"
    if part == "files":
        (path,) = stage.programs.path("cache/results/training").iterdir()
        record = json.loads(path.read_bytes())["record"]
        record["files"]["../../../../outside.txt"] = record["files"].pop("results/notes-training.a.txt")
        (stage.programs.workspace.parent / "outside.txt").write_bytes(note.read_bytes())
        path.write_text(json.dumps({"digest": digest(record), "record": record}))
    else:
        sentinel = stage.folder / "final_model/.finetune.json"
        seal = json.loads(sentinel.read_bytes())
        seal["files"]["../../../../../outside.txt"] = {
            "size": 0,
            "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        }
        sentinel.write_text(json.dumps(seal))
    stage.as_run("b")
    assert not stage(inputs).result.reused


def test_other_inputs_are_other_work(stage: Any) -> None:
    stage(stage_inputs())
    stage.as_run("b")
    assert not stage(stage_inputs(content="2")).result.reused
    assert stage.worked() == ["run-a", "run-b"]


def test_what_was_made_from_something_else_is_not_reused(stage: Any) -> None:
    inputs = stage_inputs(source="old")
    (stage.programs.workspace / "source.txt").write_text("old")
    stage(inputs)
    stage.as_run("b")
    assert stage(inputs).result.reused
    (stage.programs.workspace / "source.txt").write_text("new")
    stage.as_run("c")
    changed = stage(inputs)
    assert not changed.result.reused
    assert "its sources have changed" in changed.output


def test_what_can_change_undetected_is_never_reused(stage: Any) -> None:
    stage(stage_inputs(unseen=True))
    stage.as_run("b")
    assert not stage(stage_inputs(unseen=True)).result.reused


def test_without_a_digest_of_the_inputs_nothing_is_kept(stage: Any) -> None:
    for letter in "ab":
        stage.as_run(letter)
        assert not stage(stage_inputs(), environment={"FINETUNE_INPUTS_DIGEST": "0" * 64}).result.reused
    assert not list(stage.programs.path("cache").rglob("*.json"))


def test_another_round_of_the_same_run(stage: Any) -> None:
    """Round 2 has other inputs, round 3 those of round 1: the run's folder has the files of the current round."""
    first, second = stage_inputs(*EVERYTHING), stage_inputs("checkpoints/epoch_1", "results/notes-training.b.txt", content="2")
    stage(first)
    stage.as_run("b")
    stage(second)
    theirs = stage.published()
    stage.as_run("a")
    assert stage(second, attempt="2.1").result.message == "the same as run run-b: made"
    assert stage.published() == theirs
    third = stage(second, attempt="3.1")
    assert (third.result.reused, stage.worked()) == (True, ["run-a", "run-b"])
    assert stage.published() == theirs


def test_the_same_inputs_in_a_later_round(stage: Any) -> None:
    inputs = stage_inputs(*EVERYTHING)
    stage(inputs)
    published = stage.published()
    again = stage(inputs, attempt="2.1")
    assert (again.result.reused, again.result.message) == (True, "the same as an earlier round: made")
    assert stage.published() == published


def test_between_file_systems_it_is_copied(stage: Any) -> None:
    inputs = stage_inputs(*EVERYTHING)
    stage(inputs)
    first, published = stage.folder, stage.published()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        assert Path(elsewhere).stat().st_dev != first.stat().st_dev
        shutil.move(first, f"{elsewhere}/run")
        first.symlink_to(f"{elsewhere}/run")
        stage.as_run("b")
        assert stage(inputs).result.reused
        assert stage.published() == published
        assert (stage.folder / "final_model/weights.bin").stat().st_nlink == 1
        (Path(elsewhere) / "run/adapter/weights.bin").write_text("damaged")
        stage.as_run("c")  # the newest is asked first, and it is sound
        assert stage(inputs).result.reused


def test_every_process_of_a_job_comes_to_the_same_answer_and_one_writes(stage: Any) -> None:
    inputs = stage_inputs(*EVERYTHING)
    stage(inputs)
    stage.as_run("b")
    other = stage(inputs, environment={"RANK": "1"})
    assert (other.code, other.message) == (0, "")
    assert stage.worked() == ["run-a"]
    assert stage.published() == {}
    stage.as_run("a")
    flip(stage.folder / "adapter/weights.bin")
    stage.as_run("b")
    assert "its adapter is gone or damaged" in stage(inputs, environment={"RANK": "1"}).output


def test_a_cache_that_cannot_be_written_fails_nothing(stage: Any) -> None:
    stage.programs.path("cache").mkdir()
    stage.programs.path("cache/results").write_text("no directory")
    ended = stage(stage_inputs())
    assert (ended.code, ended.result.outcome) == (0, "Succeeded")
    assert "the result is not kept for other runs" in ended.output


@pytest.mark.parametrize("earlier_round", [False, True], ids=["first round", "after another round"])
def test_killed_at_any_step_of_taking_over_and_started_again(stage: Any, earlier_round: bool) -> None:
    """``kill -9`` before each single change of the file system: what is published is whole, and the next attempt completes."""
    parts = ("adapter", "checkpoints/epoch_1", "results/notes-training.a.txt")
    inputs, other = stage_inputs(*parts), stage_inputs("adapter", "checkpoints/epoch_2", content="2")
    stage(inputs)
    expected = stage.published()
    stage.as_run("b")
    step, killed = 0, True
    while killed:
        step += 1
        if earlier_round:
            assert in_child(stage, other, "1.1", None) == 0
        killed = in_child(stage, inputs, "2.1", step) == -signal.SIGKILL
        require_whole(stage.folder, expected["results/notes-training.a.txt"])
        assert in_child(stage, inputs, "2.2", None) == 0
        assert stage.published() == expected, step
        assert unfinished(stage.programs.workspace) == [], step
        assert json.loads((stage.folder / "results/training.json").read_text())["reused"] is True
        shutil.rmtree(stage.folder)
    assert step > 30
    assert stage.worked().count("run-b") == (step if earlier_round else 0)


def require_whole(folder: Path, note: bytes) -> None:
    """Check that every published directory is complete, that files of two rounds are not mixed, and that the file is complete."""
    contents = set()
    for directory in (folder / "final_model", folder / "adapter", *folder.glob("checkpoints/*")):
        if directory.exists():
            assert verify_seal(directory) is not None, directory
            contents.add((directory / "weights.bin").read_bytes()[-1:])
    assert len(contents) <= 1
    file = folder / "results/notes-training.a.txt"
    assert not file.exists() or file.read_bytes() == note


_CHANGES = {"os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "shutil.copyfile"}


def in_child(stage: Any, inputs: dict[str, Any], attempt: str, step: int | None) -> int:
    """Run the stage in a fork, which kills itself before its ``step``-th change of the file system; returns its exit code."""
    workspace = stage.programs.workspace
    document = StageDocument(2, "training", stage.programs.run, inputs)
    (workspace.parent / "document.json").write_text(json.dumps(encode(document)))
    pid = os.fork()
    if pid == 0:
        os.environ.update(
            FINETUNE_CONFIG=str(workspace.parent / "document.json"), FINETUNE_WORKSPACE=str(workspace), FINETUNE_ATTEMPT=attempt,
            FINETUNE_INPUTS_DIGEST=digest(inputs),
        )  # fmt: skip
        steps = iter(range(1, sys.maxsize))

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            writes = event == "open" and isinstance(arguments[1], str) and arguments[1][0] in "wax"
            if (event in _CHANGES or writes) and next(steps) == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        os._exit(plain_stage.main())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def unfinished(workspace: Path) -> list[Path]:
    """Folders of attempts that are left in the runs."""
    return [path for path in workspace.glob("runs/*/training/attempts/training/*") if path.is_dir()]


@pytest.fixture(autouse=True)
def no_leftovers(stage: Any) -> Iterator[None]:
    """Whatever happens, nothing unfinished stays in the run's folder."""
    yield
    assert unfinished(stage.programs.workspace) == []


def test_work_that_is_requested_again_is_done_again(stage: Any) -> None:
    inputs = stage_inputs(*EVERYTHING)
    stage(inputs)
    stage.as_run("b")
    again = stage(inputs, environment={"FINETUNE_AGAIN": "1"})
    assert (again.code, again.result.reused) == (0, False), again.errors
    assert stage.worked() == ["run-a", "run-b"]
