"""Another run with the same inputs reuses the data if its source is unchanged, and only then."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from finetune_contract.documents import DatasetInputs, RunInfo
from finetune_stages.sdk import verify_seal
from web_server import Answer, FileServer, Request, unused_port

SHOWING_IMPORTS = [sys.executable, "-X", "importtime", "-m", "finetune_stages.dataset"]
HEAVY = ("numpy", "httpx2", "huggingface_hub", "datasets", "pyarrow")


def rows(*numbers: int, word: str = "answer") -> str:
    messages = (
        [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": f"{word} {number}"}]
        for number in numbers
    )
    return "".join(json.dumps({"messages": each}) + "\n" for each in messages)


def as_run(programs, letter: str) -> None:
    programs.run = RunInfo(f"run-{letter}", "team-a", letter * 16)


def train(programs) -> str:
    return programs.path(programs.layout.train_data).read_text()


def test_a_file_that_is_the_same_is_reused_at_once(run_stage_program, tmp_path):
    source = tmp_path / "chat.jsonl"
    source.write_text(rows(*range(10)))
    as_run(run_stage_program, "a")
    first = run_stage_program("dataset", DatasetInputs(str(source)))
    expected = train(run_stage_program)
    as_run(run_stage_program, "b")
    second = run_stage_program("dataset", DatasetInputs(str(source)), command=SHOWING_IMPORTS)
    assert second.result.reused, second.errors
    assert second.result.message == f"the same as run run-a: {first.result.message}"
    assert second.result.outputs == first.result.outputs
    assert train(run_stage_program) == expected
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in second.errors.splitlines()}
    assert "finetune_stages" in imported
    assert not imported & set(HEAVY)


def test_a_file_that_changed_is_read_even_if_size_time_and_inode_are_the_same(run_stage_program, tmp_path):
    source = tmp_path / "chat.jsonl"
    source.write_text(rows(*range(10)))
    before = source.stat()
    run_stage_program("dataset", DatasetInputs(str(source)))
    with source.open("r+") as file:
        file.write(rows(*range(10), word="ANSWER"))
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = source.stat()
    assert (now.st_size, now.st_mtime_ns, now.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    as_run(run_stage_program, "b")
    ended = run_stage_program("dataset", DatasetInputs(str(source)))
    assert (ended.code, ended.result.reused) == (0, False)
    assert "its sources have changed or cannot be compared" in ended.output
    assert "ANSWER" in train(run_stage_program)


def test_a_changed_source_of_the_held_out_rows_is_detected(run_stage_program, tmp_path):
    source, held_out = tmp_path / "chat.jsonl", tmp_path / "eval.jsonl"
    source.write_text(rows(*range(10)))
    held_out.write_text(rows(20))
    inputs = DatasetInputs(str(source), eval_uri=str(held_out))
    run_stage_program("dataset", inputs)
    as_run(run_stage_program, "b")
    assert "the same as run" in run_stage_program("dataset", inputs).result.message
    held_out.write_text(rows(21))
    as_run(run_stage_program, "c")
    assert not run_stage_program("dataset", inputs).result.reused
    assert run_stage_program.path(run_stage_program.layout.eval_data).read_text() == rows(21)


@pytest.mark.parametrize("place", ["run", "cache"])
def test_a_flipped_byte_is_detected_and_repaired(run_stage_program, tmp_path, place):
    source = tmp_path / "chat.jsonl"
    source.write_text(rows(*range(10)))
    as_run(run_stage_program, "a")
    run_stage_program("dataset", DatasetInputs(str(source)))
    expected = train(run_stage_program)
    (entry,) = run_stage_program.path("cache/datasets").iterdir()
    file = entry / "train.jsonl" if place == "cache" else run_stage_program.path(run_stage_program.layout.train_data)
    file.write_text(expected.replace("answer", "bnswer", 1))
    as_run(run_stage_program, "b")
    ended = run_stage_program("dataset", DatasetInputs(str(source)))
    assert (ended.code, ended.result.reused) == (0, False)
    assert "run run-a has a result for the same inputs, but its datasets is gone or damaged" in ended.output
    assert train(run_stage_program) == expected


class TaggingServer(FileServer):
    """A server like most file servers: it sends validators and supports conditional requests."""

    conditional = True
    weak = ""

    def answer(self, request: Request, body: bytes) -> Answer:
        found = super().answer(request, body)
        if found.status != 200 or not isinstance(found.body, Path):
            return found
        tag = f'{self.weak}"{hash(found.body.read_bytes())}"'
        if self.conditional and request.headers.get("if-none-match") == tag:
            return Answer(304, {"ETag": tag})
        return Answer(200, {**found.headers, "ETag": tag}, found.body)


@pytest.fixture
def tagging(tmp_path: Path) -> Iterator[TaggingServer]:
    """A web server of the files in ``tmp_path / "web"``."""
    (tmp_path / "web").mkdir()
    with TaggingServer(tmp_path / "web") as server:
        yield server


@pytest.mark.parametrize("conditional", [True, False])
def test_a_web_server_is_asked_and_nothing_is_downloaded_twice(run_stage_program, tagging, conditional):
    tagging.conditional = conditional
    (tagging.folder / "chat.jsonl").write_text(rows(*range(10)))
    inputs = DatasetInputs(f"{tagging.url}/redirect/chat.jsonl")
    as_run(run_stage_program, "a")
    run_stage_program("dataset", inputs)
    shutil.rmtree(run_stage_program.path(run_stage_program.layout.root))  # as "finetune delete --purge"
    as_run(run_stage_program, "b")
    second = run_stage_program("dataset", inputs)
    assert second.result.message.startswith("the same as run run-a: "), second.output
    assert "downloading" not in second.output
    assert len(tagging.paths()) == 4
    (tagging.folder / "chat.jsonl").write_text(rows(*range(1, 11)))
    as_run(run_stage_program, "c")
    third = run_stage_program("dataset", inputs)
    assert (third.code, third.result.reused) == (0, False)
    assert "question 10" in train(run_stage_program) + run_stage_program.path(run_stage_program.layout.eval_data).read_text()


def test_a_weak_tag_is_no_proof(run_stage_program, tagging):
    tagging.weak = "W/"
    (tagging.folder / "chat.jsonl").write_text(rows(*range(10)))
    run_stage_program("dataset", DatasetInputs(f"{tagging.url}/chat.jsonl"))
    as_run(run_stage_program, "b")
    assert "downloading" in run_stage_program("dataset", DatasetInputs(f"{tagging.url}/chat.jsonl")).output


def test_a_server_that_only_knows_the_time_of_the_last_change(run_stage_program, tmp_path):
    """Python's own web server. A file that was changed within the second may change again unseen."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    source, now = tmp_path / "chat.jsonl", time.time()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        inputs = DatasetInputs(f"http://127.0.0.1:{server.server_address[1]}/chat.jsonl")
        reused = []
        for letter, word, changed in (
            ("a", "one", -60),
            ("b", "one", -60),
            ("c", "two", -30),
            ("d", "six", 60),
            ("e", "ten", 60),
        ):
            source.write_text(rows(*range(10), word=word))
            os.utime(source, (now + changed,) * 2)
            as_run(run_stage_program, letter)
            reused.append(run_stage_program("dataset", inputs).result.reused)
            assert word in train(run_stage_program)
        server.shutdown()
    assert reused == [False, True, False, False, False]


def test_a_pinned_commit_needs_no_hub_and_a_branch_is_asked_for(run_stage_program, hub):
    old = hub.add("dataset", "org/chat", {"train.jsonl": rows(*range(10)).encode()})
    environment = {"HF_ENDPOINT": hub.url}
    pinned, branch = DatasetInputs("org/chat", revision=old), DatasetInputs("org/chat")
    for inputs in (pinned, branch):
        run_stage_program("dataset", inputs, environment=environment, attempt="1.1" if inputs is pinned else "2.1")
    as_run(run_stage_program, "b")
    nobody = {"HF_ENDPOINT": f"http://127.0.0.1:{unused_port()}"}
    assert run_stage_program("dataset", pinned, environment=nobody).result.reused
    hub.requests.clear()
    assert run_stage_program("dataset", branch, environment=environment, attempt="2.1").result.reused
    assert len(hub.requests) == 1
    hub.add("dataset", "org/chat", {"train.jsonl": rows(*range(5)).encode()})
    as_run(run_stage_program, "c")
    moved = run_stage_program("dataset", branch, environment=environment)
    assert (moved.result.reused, moved.result.outputs["sourceRows"]) == (False, 5)


def test_two_runs_that_prepare_the_same_data_at_once_share_one_entry(run_stage_program, tmp_path):
    source = tmp_path / "chat.jsonl"
    source.write_text(rows(*range(3000)))
    running, layouts = [], []
    for letter in "abc":
        as_run(run_stage_program, letter)
        layouts.append(run_stage_program.layout)
        running.append(run_stage_program.start("dataset", DatasetInputs(str(source))))
    ended = [each.wait() for each in running]
    assert [each.code for each in ended] == [0] * 3, [each.errors for each in ended]
    assert len({each.result.outputs["digest"] for each in ended}) == 1
    assert len({run_stage_program.path(layout.train_data).read_bytes() for layout in layouts}) == 1
    (entry,) = run_stage_program.path("cache/datasets").iterdir()
    assert verify_seal(entry) is not None


def test_a_damaged_entry_is_found_and_prepared_again(run_stage_program, tmp_path):
    source = tmp_path / "chat.jsonl"
    source.write_text(rows(*range(20)))
    as_run(run_stage_program, "a")
    first = run_stage_program("dataset", DatasetInputs(str(source)))
    (entry,) = run_stage_program.path("cache/datasets").iterdir()
    shutil.rmtree(run_stage_program.path("cache/results"))
    (entry / "train.jsonl").unlink()
    (entry / "train.jsonl").write_text("damaged")
    as_run(run_stage_program, "b")
    second = run_stage_program("dataset", DatasetInputs(str(source)))
    assert (second.code, second.result.reused) == (0, False), second.errors
    assert second.result.outputs == first.result.outputs
    assert verify_seal(entry) is not None
    assert (entry / "train.jsonl").read_text() == train(run_stage_program) != "damaged"
