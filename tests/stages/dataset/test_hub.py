"""Datasets of a hub, loaded by the real libraries from a real server."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import signal
import zipfile
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet as parquet_format

from finetune_contract.documents import DatasetInputs, RunInfo
from hub import Hub
from web_server import unused_port

TOKEN = "hf_this_is_a_secret_token"


def row(text: str, **more) -> dict:
    return {**more, "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}]}


def jsonl(*rows) -> bytes:
    return "".join(json.dumps(each) + "\n" for each in rows).encode()


def parquet(rows: list, folder: Path) -> bytes:
    parquet_format.write_table(pa.Table.from_pylist(rows), folder / "x.parquet")
    return (folder / "x.parquet").read_bytes()


def broken_zip() -> bytes:
    """A zip archive that lacks bytes in the middle."""
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("train.jsonl", jsonl(row("a")))
    return stream.getvalue()[:40] + stream.getvalue()[100:]


def rows_of(programs, part: str = "train") -> list:
    text = programs.path(f"{programs.layout.datasets}/{part}.jsonl").read_text()
    return [json.loads(line) for line in text.split("\n")[:-1]]


def answers(programs, part: str = "train") -> list[str]:
    return [each["messages"][-1]["content"] for each in rows_of(programs, part)]


@pytest.fixture
def prepare(run_stage_program, hub: Hub):
    """Runs the stage with the hub's address."""

    def run(uri: str, token: str | None = None, **stage_inputs):
        environment = {"HF_ENDPOINT": hub.url, "HOME": "/nonexistent"}
        if token is not None:
            environment["HF_TOKEN"] = token
        stage_inputs.setdefault("train_split", 1.0)
        return run_stage_program("dataset", DatasetInputs(uri, **stage_inputs), environment=environment)

    return run


def test_only_the_requested_split_is_fetched_and_its_commit_recorded(run_stage_program, hub, prepare):
    commit = hub.add(
        "dataset", "org/chat", {"train.jsonl": jsonl(*[row(f"a{n}") for n in range(20)]), "test.jsonl": jsonl(row("t"))}
    )
    ended = prepare("org/chat", train_split=0.9)
    assert ended.code == 0, ended.errors
    assert ended.result.outputs["revision"] == commit
    assert (len(answers(run_stage_program)), len(answers(run_stage_program, "eval"))) == (18, 2)
    fetched = [path.rpartition("/")[2] for path in hub.paths() if "/resolve/" in path]
    assert fetched == ["train.jsonl"]
    left = {path.name for path in run_stage_program.path(run_stage_program.layout.root).iterdir()}
    assert left == {"attempts", "datasets", "logs", "pipeline_log.txt", "results", "training"}


def test_a_commit_that_was_prepared_before_is_not_fetched_again(run_stage_program, hub, prepare):
    hub.add("dataset", "org/chat", {"train.jsonl": jsonl(row("a"))})
    first = prepare("org/chat")
    hub.requests.clear()
    run_stage_program.run = RunInfo("other", "team-a", "fedcba9876543210")
    second = prepare("hf://org/chat")
    assert second.result.reused
    assert second.result.outputs == first.result.outputs
    assert len(hub.requests) == 1


def test_revisions(run_stage_program, hub, prepare):
    old = hub.add("dataset", "org/chat", {"train.jsonl": jsonl(row("old"))}, revision="v1")
    hub.add("dataset", "org/chat", {"train.jsonl": jsonl(row("new"))})
    for revision, text in (("v1", "old"), (old, "old"), (None, "new")):
        ended = prepare("org/chat", revision=revision)
        assert ended.code == 0, ended.errors
        assert answers(run_stage_program) == [text]
    ended = prepare("org/chat", revision="v9")
    assert (ended.code, ended.reason) == (65, "DatasetNotFound")
    assert ended.result.message == "Dataset org/chat: it has no revision v9; correct the revision."


@pytest.mark.parametrize(
    ("splits", "wanted", "chosen"),
    [
        (["test", "train", "train_sft"], None, "train"),
        (["test_sft", "train_gen", "train_sft"], None, "train_sft"),
        (["test_gen", "train_gen"], None, "train_gen"),
        (["other", "training"], None, "training"),
        (["alpha", "beta"], None, "alpha"),
        (["test", "train"], "test", "test"),
    ],
)
def test_the_split_is_chosen_as_in_the_old_pipelines(run_stage_program, hub, prepare, splits, wanted, chosen):
    card = "configs:\n- config_name: default\n  data_files:\n"
    card += "".join(f"  - split: {split}\n    path: {split}.jsonl\n" for split in splits)
    files = {f"{split}.jsonl": jsonl(row(split)) for split in splits}
    hub.add("dataset", "org/chat", {"README.md": f"---\n{card}---\n".encode(), **files})
    ended = prepare("org/chat", split=wanted)
    assert ended.code == 0, ended.errors
    assert answers(run_stage_program) == [chosen]


def test_splits_and_configurations_that_are_not_there(hub, prepare):
    card = "configs:\n" + "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}.jsonl\n" for name in ("All", "Some")
    )
    hub.add(
        "dataset",
        "org/many",
        {"README.md": f"---\n{card}---\n".encode(), "All.jsonl": jsonl(row("all")), "Some.jsonl": jsonl(row("some"))},
    )
    ended = prepare("org/many:Other")
    assert (ended.code, ended.reason) == (65, "SplitNotFound")
    assert ended.result.message == "org/many: it has no configuration 'Other'; use one of All, Some."
    ended = prepare("org/many")
    assert (ended.code, ended.reason) == (65, "SplitNotFound")
    assert (
        ended.result.message
        == "org/many: it requires a configuration; write hf://org/many:<configuration> with one of All, Some."
    )
    ended = prepare("org/many:Some", split="test")
    assert (ended.code, ended.reason) == (65, "SplitNotFound")
    assert ended.result.message == "org/many: it has no split 'test'; use one of train."


def test_a_card_names_no_files_outside_of_its_repository(hub, prepare, web):
    (web.folder / "private.jsonl").write_bytes(jsonl(row("mine")))
    for path in (str(web.folder / "private.jsonl"), f"{web.url}/private.jsonl"):
        card = f"configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: {path}\n"
        hub.add("dataset", "org/chat", {"README.md": f"---\n{card}---\n".encode(), "train.jsonl": jsonl(row("a"))})
        ended = prepare("org/chat")
        assert (ended.code, ended.reason) == (65, "DatasetUnreadable"), ended.output
        assert "don't belong to org/chat" in ended.result.message or "is not a file of the repository" in ended.result.message


def test_a_configuration_by_name(run_stage_program, hub, prepare):
    card = "configs:\n" + "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}.jsonl\n" for name in ("All", "Some")
    )
    hub.add(
        "dataset",
        "org/many",
        {"README.md": f"---\n{card}---\n".encode(), "All.jsonl": jsonl(row("all")), "Some.jsonl": jsonl(row("some"))},
    )
    assert prepare("org/many:Some").code == 0
    assert answers(run_stage_program) == ["some"]


def test_rows_of_other_formats_come_out_without_the_nulls_of_arrow(run_stage_program, hub, prepare, tmp_path):
    call = [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]
    rows = [
        {"id": 1, "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "tags": []},
        {"id": 2, "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": call}, {"role": "tool", "content": "4"}]},
        {"messages": [{"role": "user", "content": "é\u2028"}, {"role": "assistant", "content": "2020-01-01"}], "tags": ["x", None]},
    ]  # fmt: skip
    hub.add("dataset", "org/parquet", {"data/train-00000-of-00001.parquet": parquet(rows, tmp_path)})
    ended = prepare("org/parquet")
    assert ended.code == 0, ended.errors
    assert rows_of(run_stage_program) == rows


def test_values_that_json_does_not_have(run_stage_program, hub, prepare, tmp_path):
    rows = [
        {**row("a"), "score": float("nan"), "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "raw": b"\xff\x01", "text": b"t"}
    ]
    hub.add("dataset", "org/parquet", {"train.parquet": parquet(rows, tmp_path)})
    ended = prepare("org/parquet")
    assert ended.code == 0, ended.errors
    assert rows_of(run_stage_program) == [{**row("a"), "score": None, "at": "2026-01-02T03:04:05+00:00", "text": "t"}]
    assert ended.result.warnings == (
        "org/parquet: column raw has bytes that are not UTF-8 text; omitted.",
        "org/parquet: 1 row (row 1) outside of messages and tools: NaN and infinite numbers are not JSON and are written as null.",
    )


def test_mixed_rows_of_json_lines(run_stage_program, hub, prepare):
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}
    rows = [row("a"), {"messages": [{"role": "user", "content": "q"}, call]}, row("b", meta={"x": [1, "y"]})]
    hub.add("dataset", "org/mixed", {"train.jsonl": jsonl(*rows)})
    ended = prepare("org/mixed")
    assert ended.code == 0, ended.errors
    assert rows_of(run_stage_program) == rows


def test_a_subset_of_a_hub_data_set(run_stage_program, hub, prepare):
    hub.add("dataset", "org/chat", {"train.jsonl": jsonl(*[row(f"a{n}") for n in range(10)])})
    ended = prepare("org/chat", subset=3)
    assert answers(run_stage_program) == ["a1", "a0", "a4"]
    assert ended.result.outputs["sourceRows"] == 10


def test_bad_rows_are_counted_in_the_source(hub, prepare):
    rows = [row("a"), {"messages": [{"role": "user", "content": "q"}]}, row("c")]
    hub.add("dataset", "org/chat", {"train.jsonl": jsonl(*rows)})
    ended = prepare("org/chat")
    assert (ended.code, ended.reason) == (65, "BadRow")
    assert ended.result.message.startswith("org/chat: row 2 (line 2) has no message of the assistant")


def test_columns_that_are_no_chat(hub, prepare):
    hub.add("dataset", "org/csv", {"train.csv": b"question,answer\nq,a\n"})
    ended = prepare("org/csv")
    assert (ended.code, ended.reason) == (65, "ColumnNotFound")
    assert ended.result.message.endswith("are: question, answer; set dataset.fields to {prompt: question, completion: answer}.")


def test_held_out_rows_from_the_test_split_of_the_same_data_set(run_stage_program, hub, prepare):
    hub.add("dataset", "org/chat", {"train.jsonl": jsonl(row("a"), row("b")), "test.jsonl": jsonl(row("t"))}, revision="v1")
    ended = prepare("org/chat", eval_uri="org/chat", revision="v1", train_split=0.9)
    assert ended.code == 0, ended.errors
    assert (answers(run_stage_program), answers(run_stage_program, "eval")) == (["a", "b"], ["t"])


@pytest.mark.parametrize(
    ("access", "token", "reason", "words"),
    [
        ({"gated": True}, None, "DatasetForbidden", "is gated; accept its terms on its hub page and set HF_TOKEN to a token"),
        ({"gated": True}, "hf_another", "DatasetForbidden", "check that the owner of the token in HF_TOKEN may read it"),
        ({"private": True}, None, "DatasetForbidden", "is private or does not exist on"),
        ({"private": True}, "   ", "DatasetForbidden", "set HF_TOKEN to a token that may read it"),
        ({}, "hf_made_up_token", "DatasetForbidden", "does not accept the token in HF_TOKEN; renew it."),
    ],
)
def test_closed_data_sets(run_stage_program, hub, prepare, access, token, reason, words):
    hub.add("dataset", "org/closed", {"train.jsonl": jsonl(row("a"))}, **access)
    hub.tokens = {TOKEN: {"org/closed"}, "hf_another": set()}
    ended = prepare("org/closed", token=token)
    assert (ended.code, ended.reason) == (65, reason)
    assert words in ended.result.message
    opened = prepare("org/closed", token=f" {TOKEN}\n")
    assert opened.code == 0, opened.errors
    files = b"".join(path.read_bytes() for path in run_stage_program.workspace.rglob("*") if path.is_file())
    assert TOKEN not in opened.output + opened.errors + opened.message
    assert TOKEN.encode() not in files


def test_a_mirror_that_does_not_know_the_question_for_access(hub, prepare):
    hub.add("dataset", "org/closed", {"train.jsonl": jsonl(row("a"))}, gated=True)
    hub.tokens = {TOKEN: {"org/closed"}}
    hub.fault("/auth-check", status=404)
    assert prepare("org/closed", token=TOKEN).code == 0


def test_a_data_set_that_does_not_exist(hub, prepare):
    ended = prepare("org/none")
    assert (ended.code, ended.reason) == (65, "DatasetNotFound")
    assert ended.result.message == f"Dataset org/none: it does not exist on {hub.url}; correct dataset.uri."


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"train.jsonl": b'{"messages": [\n'},
            "org/broken: row 1 (line 1) is not JSON (Expecting value at character 15) (1 of 1 rows is not JSON); correct it, or write the file again.",
        ),
        (
            {"train.parquet": b"not parquet"},
            "org/broken/train.parquet: is not JSON or JSON Lines and looks like Parquet (its first line is not parquet)",
        ),
        ({"train.parquet": b"PAR1 not parquet"}, "org/broken/train.parquet: is a damaged Parquet file (Parquet magic bytes"),
        ({"train.zip": broken_zip()}, "org/broken/train.zip: is a damaged archive ("),
        (
            {"train.csv": b"prompt,completion\n1,2\n1,2,3,4\n"},
            "org/broken: row 2 (line 3) has 4 cells, and the header has 2 (1 of 2 rows is bad)",
        ),
        (
            {"train.jsonl.bz2": bz2.compress(jsonl(row("a"))) + b"bZh" + bz2.compress(jsonl(row("b")))[3:]},
            "org/broken/train.jsonl.bz2: is a damaged bzip2 file (Invalid data stream)",
        ),
    ],
)
def test_files_that_cannot_be_read(hub, prepare, files, words):
    hub.add("dataset", "org/broken", files)
    ended = prepare("org/broken")
    assert (ended.code, ended.reason) in ((65, "DatasetUnreadable"), (65, "BadRow"))
    assert words in ended.result.message
    assert "Traceback" not in ended.errors


def test_cells_of_csv_and_tsv_are_text(run_stage_program, hub, prepare):
    header, cells = ("prompt", "completion", "id"), [("NA", "None", "007"), ("null", "nan", "")]
    for name, separator in (("train.csv", ","), ("train.tsv", "\t"), ("train.csv.gz", ",")):
        text = "".join(separator.join(each) + "\n" for each in (header, *cells)).encode()
        hub.add("dataset", "org/cells", {name: gzip.compress(text) if name.endswith(".gz") else text})
        ended = prepare("org/cells")
        assert ended.code == 0, ended.errors
        assert [[message["content"] for message in each["messages"]] for each in rows_of(run_stage_program)] == [
            ["NA", "None"], ["null", "nan"],
        ]  # fmt: skip
        assert [each["id"] for each in rows_of(run_stage_program)] == ["007", ""]


def test_csv_with_options_of_its_card_is_read_by_the_library(run_stage_program, hub, prepare):
    card = "configs:\n- config_name: default\n  skiprows: 1\n  data_files:\n  - split: train\n    path: train.csv\n"
    text = b"a comment\nprompt,completion\nq,a\n"
    hub.add("dataset", "org/cells", {"README.md": f"---\n{card}---\n".encode(), "train.csv": text})
    ended = prepare("org/cells")
    assert ended.code == 0, ended.errors
    assert answers(run_stage_program) == ["a"]


def test_files_with_different_columns_and_an_archive_are_read(run_stage_program, hub, prepare, tmp_path):
    files = {"train-0.parquet": parquet([row("a")], tmp_path), "train-1.parquet": parquet([row("b", score=1)], tmp_path)}
    hub.add("dataset", "org/parts", files)
    ended = prepare("org/parts")
    assert ended.code == 0, ended.errors
    assert rows_of(run_stage_program) == [row("a"), row("b", score=1)]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("one.jsonl", jsonl(row("c")))
        archive.writestr("two.jsonl", jsonl({"messages": []}))
    hub.add("dataset", "org/packed", {"train.zip": (tmp_path / "x.zip").read_bytes()})
    ended = prepare("org/packed")
    assert ended.result.message.startswith("org/packed: row 1 (line 1) of org/packed/train.zip/two.jsonl has an empty list"), (
        ended
    )


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("/api/datasets/org/chat", {"status": 503}),
        ("train.jsonl", {"status": 500, "times": 99}),
        ("/api/datasets", {"reset_after": 3}),
    ],
)
def test_a_hub_that_fails(hub, prepare, text, how):
    hub.add("dataset", "org/chat", {"train.jsonl": jsonl(*[row("a")] * 100)})
    hub.fault(text, **how)
    ended = prepare("org/chat")
    assert (ended.code, ended.reason) == (75, "DatasetUnreachable")
    assert "Traceback" not in ended.errors


def test_a_download_that_breaks_off_is_resumed(run_stage_program, hub, prepare):
    hub.add("dataset", "org/chat", {"train.jsonl": jsonl(*[row("a")] * 1000)})
    hub.fault("train.jsonl", truncate_after=5000)
    assert prepare("org/chat").code == 0
    assert len(answers(run_stage_program)) == 1000
    assert sum("/resolve/" in path for path in hub.paths()) == 2


def test_ended_in_the_middle_of_a_download(run_stage_program, hub):
    hub.add("dataset", "org/chat", {"train.jsonl": jsonl(*[row("a")] * 1000)})
    hold = hub.fault("train.jsonl", hold_after=5000)
    running = run_stage_program.start("dataset", DatasetInputs("org/chat"), environment={"HF_ENDPOINT": hub.url})
    assert hold.reached.wait(60)
    os.kill(running.process.pid, signal.SIGTERM)
    ended = running.wait(timeout=20)
    assert (ended.code, ended.reason) == (143, "Interrupted")
    assert not run_stage_program.path("cache/datasets").exists()


def test_no_hub_at_all(run_stage_program):
    address = f"http://127.0.0.1:{unused_port()}"
    ended = run_stage_program("dataset", DatasetInputs("org/chat"), environment={"HF_ENDPOINT": address})
    assert (ended.code, ended.reason) == (75, "DatasetUnreachable")
    assert address in ended.result.message


def test_a_hub_that_nobody_may_ask(run_stage_program):
    ended = run_stage_program("dataset", DatasetInputs("org/chat"), environment={"HF_HUB_OFFLINE": "1"})
    assert (ended.code, ended.reason) == (75, "DatasetUnreachable")
    assert "HF_HUB_OFFLINE" in ended.result.message


def test_a_hub_that_the_platform_does_not_allow(run_stage_program):
    environment = {"HF_HUB_OFFLINE": "1", "FINETUNE_ALLOWED_HOSTS": '{"hubs": ["hub.example.com"]}'}
    ended = run_stage_program("dataset", DatasetInputs("org/chat"), environment=environment)
    assert (ended.code, ended.reason) == (65, "HostNotAllowed")
    assert ended.result.message == (
        "dataset.uri: host huggingface.co is not allowed here; use one of allowedHosts.hubs in the operator's configuration (hub.example.com)."
    )


def test_a_folder_of_the_working_directory_is_not_taken_for_the_data_set(run_stage_program, hub, tmp_path):
    (tmp_path / "org" / "chat").mkdir(parents=True)
    (tmp_path / "org" / "chat" / "train.jsonl").write_bytes(jsonl(row("local")))
    hub.add("dataset", "org/chat", {"train.jsonl": jsonl(row("hub"))})
    inputs = DatasetInputs("org/chat", train_split=1.0)
    assert run_stage_program("dataset", inputs, environment={"HF_ENDPOINT": hub.url}, cwd=tmp_path).code == 0
    assert answers(run_stage_program) == ["hub"]


def test_a_digest_of_a_file_means_nothing_for_a_hub_data_set(hub, prepare):
    ended = prepare("org/chat", sha256="0" * 64)
    assert (ended.code, ended.reason) == (65, "BadDocument")
    assert "dataset.revision" in ended.result.message
    assert hub.requests == []


def test_parquet_rows_in_format_alpaca_are_converted(run_stage_program, hub, prepare, tmp_path):
    rows = [
        {"instruction": "q", "input": None, "output": "a", "history": [["h", "i"]], "text": "t"},
        {"instruction": "r", "input": "s", "output": "b", "history": None, "text": "t"},
        {"instruction": "r", "input": "s", "output": None, "history": None, "text": "t"},
    ]
    hub.add("dataset", "org/alpaca", {"train.parquet": parquet(rows, tmp_path)})
    ended = prepare("org/alpaca", bad_rows="Drop", bad_rows_share=0.5)
    assert ended.code == 0, ended.errors
    assert [[each["content"] for each in found["messages"]] for found in rows_of(run_stage_program)] == [
        ["h", "i", "q", "a"], ["r\ns", "b"],
    ]  # fmt: skip
    assert [found["text"] for found in rows_of(run_stage_program)] == ["t", "t"]
    assert ended.result.message.endswith(
        "1 left out as bad: row 3 has no output (its keys are: instruction, input, text); format alpaca, read from columns instruction, output, history,"
        " input; ignored columns (rows) text (2)"
    )
