"""The program on files of the machine: what it publishes, repeats, reuses, rejects, and survives."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finetune_contract.documents import DatasetInputs, RunInfo
from finetune_stages.sdk import read_seal, verify_seal
from restricted import in_a_small_volume, without_privileges
from web_server import wait_until

PROGRAM = [sys.executable, "-m", "finetune_stages.dataset"]
OTHER_RUN = RunInfo("other", "team-a", "fedcba9876543210")


def row(number: int, **more) -> dict:
    return {
        **more,
        "messages": [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": f"answer {number}"}],
    }


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path


def read(path: Path) -> list:
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def published(programs) -> tuple[list, list]:
    folder = programs.path(programs.layout.datasets)
    assert verify_seal(folder) is not None
    return read(folder / "train.jsonl"), read(folder / "eval.jsonl")


def leftovers(programs) -> list[str]:
    """What unfinished work is left in the run's folder."""
    folder = programs.path(f"{programs.layout.root}/attempts/dataset")
    return [path.name for path in folder.iterdir() if path.name != "current"]


def test_rows_become_two_published_files(run_stage_program, tmp_path):
    rows = [row(number, id=number, note=None if number % 2 else "x", unmask=bool(number % 3)) for number in range(20)]
    source = write(tmp_path / "chat.jsonl", rows)
    ended = run_stage_program("dataset", DatasetInputs(str(source)))
    assert (ended.code, ended.result.outcome) == (0, "Succeeded"), ended.errors
    train, held_out = published(run_stage_program)
    assert (len(train), len(held_out)) == (18, 2)
    assert sorted(train + held_out, key=lambda each: each["id"]) == rows
    seal = read_seal(run_stage_program.path(run_stage_program.layout.datasets))
    assert ended.result.outputs == {
        "digest": seal.digest, "trainRows": 18, "evalRows": 2, "sourceRows": 20, "droppedRows": 0,
        "sourceDigest": hashlib.sha256(source.read_bytes()).hexdigest(),
    }  # fmt: skip
    size = sum(file.size for name, file in seal.files.items() if name.endswith(".jsonl"))
    assert {name: ended.result.metrics[name] for name in ("train_rows", "eval_rows", "dropped_rows", "bytes")} == {
        "train_rows": 18, "eval_rows": 2, "dropped_rows": 0, "bytes": size,
    }  # fmt: skip
    assert leftovers(run_stage_program) == []
    assert all(path.stat().st_mode & 0o060 == 0o060 for path in run_stage_program.workspace.rglob("*"))


def test_a_second_start_repeats_the_result_and_a_new_run_reuses_the_work(run_stage_program, tmp_path):
    inputs = DatasetInputs(str(write(tmp_path / "chat.jsonl", map(row, range(10)))))
    first = run_stage_program("dataset", inputs)
    again = run_stage_program("dataset", inputs, attempt="1.2")
    assert "nothing to do" in again.output
    assert replace(again.result, attempt="1.1") == first.result
    run_stage_program.run = OTHER_RUN
    other = run_stage_program("dataset", inputs)
    assert other.result.reused
    assert other.result.outputs == first.result.outputs
    assert len(published(run_stage_program)[0]) == 9
    assert len(list(run_stage_program.path("cache/datasets").iterdir())) == 1


def test_what_matters_to_the_rows_makes_a_new_cache_entry(run_stage_program, tmp_path):
    source = write(tmp_path / "chat.jsonl", map(row, range(10)))
    inputs = DatasetInputs(str(source))
    run_stage_program("dataset", inputs)
    grouped = replace(inputs, split_by="grouped", split_field="id")
    for stage_inputs in (replace(inputs, seed=1), replace(inputs, train_split=0.5), replace(inputs, subset=5), grouped):
        assert not run_stage_program("dataset", stage_inputs).result.reused
    write(source, map(row, range(1, 11)))
    run_stage_program.run = OTHER_RUN  # the first run would repeat its result: its inputs are the same
    assert not run_stage_program("dataset", inputs).result.reused


def test_damage_is_detected_and_repaired(run_stage_program, tmp_path):
    inputs = DatasetInputs(str(write(tmp_path / "chat.jsonl", map(row, range(10)))))
    first = run_stage_program("dataset", inputs)
    file = run_stage_program.path(run_stage_program.layout.train_data)
    file.write_bytes(file.read_bytes().replace(b"answer", b"ANSWER"))  # a link: the cache's entry is damaged with it
    second = run_stage_program("dataset", inputs)
    assert second.code == 0
    assert not second.result.reused
    assert second.result.outputs == first.result.outputs
    assert "answer" in published(run_stage_program)[0][0]["messages"][1]["content"]


def test_a_relative_path_is_found_from_the_working_directory(run_stage_program, tmp_path):
    write(tmp_path / "chat.jsonl", map(row, range(10)))
    assert run_stage_program("dataset", DatasetInputs("./chat.jsonl"), cwd=tmp_path).code == 0


def test_a_subset_is_taken_before_rows_are_checked(run_stage_program, tmp_path):
    source = write(tmp_path / "chat.jsonl", [*map(row, range(5)), *[{"bad": 1}] * 5])
    ended = run_stage_program("dataset", DatasetInputs(str(source), subset=5, subset_mode="first", train_split=1.0))
    assert ended.code == 0, ended.errors
    assert published(run_stage_program) == (list(map(row, range(5))), [])
    assert ended.result.outputs["sourceRows"] == 10
    ended = run_stage_program("dataset", DatasetInputs(str(source), subset=4))  # draws rows 1, 0, 4 and 9
    assert (ended.code, ended.reason) == (65, "BadRow")
    assert "row 10 (line 10) has no messages" in ended.result.message


def test_a_random_subset_keeps_the_drawn_order(run_stage_program, tmp_path):
    source = write(tmp_path / "chat.jsonl", map(row, range(1000)))
    run_stage_program("dataset", DatasetInputs(str(source), subset=5, train_split=1.0))
    assert published(run_stage_program)[0] == [row(number) for number in (654, 114, 25, 759, 281)]


def test_held_out_rows_of_their_own(run_stage_program, tmp_path):
    source = write(tmp_path / "chat.json", [])
    source.write_text(json.dumps([row(number) for number in range(6)], indent=1))
    other = write(tmp_path / "eval.jsonl", [*map(row, range(100, 109)), {"bad": 1}])
    ended = run_stage_program(
        "dataset",
        DatasetInputs(str(source), eval_uri=str(other), subset=4, subset_mode="first", bad_rows="Drop", bad_rows_share=0.1),
    )
    assert ended.code == 0, ended.errors
    assert published(run_stage_program) == (list(map(row, range(4))), list(map(row, range(100, 109))))
    assert ended.result.outputs["droppedRows"] == 1
    assert ended.result.message == (
        f"4 training rows of 6 in {source} and 9 held-out rows of 10 in {other}; 1 left out as bad: {other}: row 10 (line 10) has no messages"
        " (its keys are: bad)"
    )


def locations(programs, part: str) -> list:
    return np.load(programs.path(f"{programs.layout.datasets}/{part}.locations.npy")).tolist()


def names_of_sources(programs) -> tuple:
    note = read_seal(programs.path(programs.layout.datasets)).note
    return note["source"], note["evalSource"]


def test_the_place_of_every_published_row_is_known(run_stage_program, tmp_path):
    rows = [row(number) for number in range(20)]
    source = tmp_path / "chat.jsonl"
    source.write_text("\n".join(json.dumps(each) + "\n" * (each is rows[3]) for each in [rows[0], {"bad": 1}, *rows[1:]]))
    ended = run_stage_program("dataset", DatasetInputs(str(source), subset=12, bad_rows="Drop", bad_rows_share=1.0))
    assert ended.code == 0, ended.errors
    lines = source.read_text().split("\n")
    for part, held in zip(("train", "eval"), published(run_stage_program), strict=True):
        found = locations(run_stage_program, part)
        assert [json.loads(lines[line - 1]) for _, line in found] == held
        assert [number + (number > 5) for number, _ in found] == [line for _, line in found]
    assert names_of_sources(run_stage_program) == (str(source), str(source))


def test_locations_in_an_array_and_in_a_source_of_held_out_rows(run_stage_program, tmp_path):
    (tmp_path / "chat.json").write_text(json.dumps([row(1), row(2)]))
    other = write(tmp_path / "eval.jsonl", [row(3)])
    inputs = DatasetInputs(str(tmp_path / "chat.json"), eval_uri=str(other))
    assert run_stage_program("dataset", inputs).code == 0
    assert locations(run_stage_program, "train") == [[1, 1], [2, 1]]
    assert locations(run_stage_program, "eval") == [[1, 1]]
    assert names_of_sources(run_stage_program) == (str(tmp_path / "chat.json"), str(other))


def test_equal_files_in_two_places_are_named_by_their_own_names(run_stage_program, tmp_path):
    first, second = (write(tmp_path / name, map(row, range(10))) for name in ("a.jsonl", "b.jsonl"))
    run_stage_program("dataset", DatasetInputs(str(first)))
    for number in range(2):
        run_stage_program.run = RunInfo(f"other-{number}", "team-a", f"fedcba987654321{number}")
        ended = run_stage_program("dataset", DatasetInputs(str(second)))
        assert ended.result.reused
        assert names_of_sources(run_stage_program) == (str(second), str(second))


def test_two_arrays_do_not_meet(run_stage_program, tmp_path):
    for name, start in (("a.json", 0), ("b.json", 100)):
        (tmp_path / name).write_text(json.dumps([row(number) for number in range(start, start + 3)], indent=2))
    ended = run_stage_program("dataset", DatasetInputs(str(tmp_path / "a.json"), eval_uri=str(tmp_path / "b.json")))
    assert ended.code == 0, ended.errors
    assert published(run_stage_program) == (list(map(row, range(3))), list(map(row, range(100, 103))))


def test_faults_of_the_held_out_rows_name_their_file(run_stage_program, tmp_path):
    source, other = write(tmp_path / "chat.jsonl", map(row, range(6))), write(tmp_path / "eval.jsonl", [{"messages": []}])
    ended = run_stage_program("dataset", DatasetInputs(str(source), eval_uri=str(other)))
    assert (ended.code, ended.reason) == (65, "BadRow")
    assert ended.result.message.startswith(f"{other}: row 1 (line 1) has an empty list of messages")
    ended = run_stage_program("dataset", DatasetInputs(str(source), eval_uri=str(tmp_path / "none")))
    assert (ended.code, ended.reason) == (65, "DatasetNotFound")
    assert "dataset.evalUri: there is no dataset at" in ended.result.message


def test_a_stated_digest_is_checked(run_stage_program, tmp_path):
    source = write(tmp_path / "chat.jsonl", map(row, range(10)))
    right, wrong = hashlib.sha256(source.read_bytes()).hexdigest(), "0" * 64
    ended = run_stage_program("dataset", DatasetInputs(str(source), sha256=wrong))
    assert (ended.code, ended.reason) == (65, "DatasetChanged")
    assert right in ended.result.message
    assert wrong in ended.result.message
    assert run_stage_program("dataset", DatasetInputs(str(source), sha256=right)).code == 0


@pytest.mark.parametrize(
    ("inputs", "reason", "words"),
    [
        (
            {"uri": "/nowhere/chat.jsonl"},
            "DatasetNotFound",
            "dataset.uri: there is no dataset at /nowhere/chat.jsonl; correct the path.",
        ),
        ({"uri": "/"}, "DatasetNotFound", "dataset.uri: / has more than 100,000 files"),
        ({"uri": "s3://bucket/x"}, "S3CredentialsMissing", "dataset.uri: s3://bucket/x: needs an access key"),
        (
            {"uri": "pvc://claim/x"},
            "BadDocument",
            "dataset.uri: claim claim is not mounted below the directory in FINETUNE_CLAIMS",
        ),
        ({"uri": "/etc/hosts", "split": "train"}, "BadDocument", "dataset.split: it applies to hub datasets only"),
        ({"uri": "/etc/hosts", "revision": "v1"}, "BadDocument", "dataset.revision: it applies to hub datasets only"),
        ({"uri": "/etc/hosts", "trainSplit": 0.0}, "BadDocument", "inputs.trainSplit: 0 is not above 0"),
        ({"uri": "/etc/hosts", "seed": -1}, "BadDocument", "inputs.seed: -1 is below 0"),
        ({"uri": "/dev/null"}, "DatasetNotFound", "dataset.uri: /dev/null is a device, a pipe or a socket; set a file."),
        ({"uri": "/etc/hosts", "format": "parquet"}, "BadDocument", "inputs.format"),
        ({"uri": "/etc/hosts"}, "DatasetUnreadable", "is not JSON"),
        ({"url": "x"}, "BadDocument", "inputs.url: unknown field"),
    ],
)
def test_what_cannot_be_prepared(run_stage_program, inputs, reason, words):
    ended = run_stage_program("dataset", inputs)
    assert (ended.code, ended.reason) == (65, reason)
    assert words in ended.result.message
    assert "Traceback" not in ended.output + ended.errors
    assert not run_stage_program.path(run_stage_program.layout.datasets).exists()
    assert leftovers(run_stage_program) == []


def test_one_row_is_too_few_to_split(run_stage_program, tmp_path):
    source = write(tmp_path / "chat.jsonl", [row(1)])
    ended = run_stage_program("dataset", DatasetInputs(str(source)))
    assert (ended.code, ended.reason) == (65, "TooFewRows")
    assert run_stage_program("dataset", DatasetInputs(str(source), train_split=1.0)).code == 0


@pytest.mark.parametrize("closed", ["folder", "folder/chat.jsonl"])
def test_a_file_that_the_user_may_not_read(run_stage_program, tmp_path, closed):
    (tmp_path / "folder").mkdir()
    source = write(tmp_path / "folder" / "chat.jsonl", map(row, range(10)))
    (tmp_path / closed).chmod(0)
    command = without_privileges(PROGRAM)
    ended = run_stage_program("dataset", DatasetInputs(str(source)), command=command)
    (tmp_path / closed).chmod(0o700)
    assert (ended.code, ended.reason) == (65, "DatasetForbidden")
    assert f"dataset.uri: user {os.getuid()} may not read {source}" in ended.result.message


def test_a_workspace_that_the_user_may_not_write(run_stage_program, tmp_path):
    source = write(tmp_path / "chat.jsonl", map(row, range(10)))
    run_stage_program.workspace.chmod(0o555)
    command = without_privileges(PROGRAM)
    ended = run_stage_program("dataset", DatasetInputs(str(source)), command=command)
    run_stage_program.workspace.chmod(0o755)
    assert (ended.code, ended.reason) == (65, "WorkspaceNotWritable")
    assert str(run_stage_program.workspace) in ended.result.message
    assert list(run_stage_program.workspace.iterdir()) == []


def test_a_full_workspace(run_stage_program, tmp_path):
    """On a file system of 1 MiB that only the program has, so that the kernel reports no space."""
    source = write(tmp_path / "chat.jsonl", (row(number, filler="x" * 1000) for number in range(2000)))
    seen_after = tmp_path / "left.txt"
    command = in_a_small_volume(PROGRAM, run_stage_program.workspace, 1024, seen_after)
    ended = run_stage_program("dataset", DatasetInputs(str(source)), command=command)
    assert (ended.code, ended.reason) == (65, "WorkspaceFull"), ended.errors
    assert "no space is left" in ended.result.message
    left = seen_after.read_text()
    assert "/logs" in left
    assert "/datasets" not in left.replace("cache/datasets", "")
    assert "prepared" not in left


def test_killed_while_it_writes_and_started_again(run_stage_program, tmp_path):
    source = write(tmp_path / "chat.jsonl", (row(number, filler="x" * 3000) for number in range(40_000)))
    inputs = DatasetInputs(str(source))
    running = run_stage_program.start("dataset", inputs)
    unfinished = run_stage_program.path(f"{run_stage_program.layout.root}/attempts/dataset/1.1/prepared/train.jsonl")
    wait_until(unfinished.exists)
    os.kill(running.process.pid, signal.SIGKILL)
    assert running.wait().code == -signal.SIGKILL
    assert unfinished.exists()
    assert not run_stage_program.path(run_stage_program.layout.datasets).exists()
    assert not run_stage_program.path("cache/datasets").exists()
    ended = run_stage_program("dataset", inputs, attempt="1.2")
    assert ended.code == 0, ended.errors
    train, held_out = published(run_stage_program)
    assert (len(train), len(held_out)) == (36_000, 4_000)
    assert leftovers(run_stage_program) == []


def test_many_programs_at_once_on_one_cache_entry(run_stage_program, tmp_path):
    inputs = DatasetInputs(str(write(tmp_path / "chat.jsonl", map(row, range(3000)))))
    runs = [RunInfo(f"run-{letter}", "team-a", letter * 16) for letter in "abc"]
    started = []
    for run in runs:
        run_stage_program.run = run
        started.append(run_stage_program.start("dataset", inputs))
    ended = [running.wait() for running in started]
    assert [each.code for each in ended] == [0, 0, 0], [each.errors for each in ended]
    assert len({each.result.outputs["digest"] for each in ended}) == 1
    (entry,) = run_stage_program.path("cache/datasets").iterdir()
    assert verify_seal(entry) is not None
    for run in runs:
        run_stage_program.run = run
        assert len(published(run_stage_program)[0]) == 2700
        assert leftovers(run_stage_program) == []


def test_an_attempt_that_was_overtaken_publishes_nothing(run_stage_program, tmp_path):
    inputs = DatasetInputs(str(write(tmp_path / "chat.jsonl", map(row, range(10)))))
    assert run_stage_program("dataset", inputs, attempt="1.2").code == 0
    shutil.rmtree(run_stage_program.path(f"{run_stage_program.layout.root}/results"))
    before = published(run_stage_program)
    ended = run_stage_program("dataset", inputs, attempt="1.1")
    assert (ended.code, ended.reason) == (143, "Superseded")
    assert published(run_stage_program) == before
