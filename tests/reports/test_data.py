"""Reports about files of data: the published form of each, or the reason and the message of its rejection."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tarfile
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet as parquet_format

from finetune_contract import CONTRACT_VERSION
from finetune_contract.codec import encode
from finetune_contract.documents import DatasetInputs, RunInfo, StageDocument
from finetune_contract.workspace import Attempt
from finetune_stages.dataset.prepare import prepare
from finetune_stages.sdk import Context, StageError, read_seal
from finetune_stages.tokenization.limits import bad_in_training
from hub import Hub
from reports.report import Report, reports
from stages.conftest import StagePrograms

ROW = b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}'
VALUE = json.loads(ROW)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@dataclass(frozen=True)
class File:
    """A file of the user's."""

    content: bytes
    name: str = "in.jsonl"
    inputs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """The rows, as JSON, their places (row, line), and words of a warning."""

    rows: list[Any]
    locations: list[list[int]]
    warning: str = ""


@dataclass(frozen=True)
class Rejected:
    """A reason, and the whole message, with ``IN`` for the path of the file."""

    reason: str
    message: str


RUN = RunInfo("demo", "team-a", "0123456789abcdef")


def run_in_process(folder: Path, uri: str, stage_inputs: dict[str, Any], run: RunInfo = RUN) -> Published | Rejected:
    """The stage's work on ``uri``: what it publishes, or how it fails."""
    inputs = DatasetInputs(uri, **{"train_split": 1.0, **stage_inputs})
    document = StageDocument(CONTRACT_VERSION, "dataset", run, encode(inputs))
    context = Context(document, folder / "workspace", Attempt(1, 1), "0" * 64)
    context.path(context.layout.root).mkdir(parents=True)
    context.become_current()
    try:
        finished = prepare(context)
    except StageError as error:
        return Rejected(error.reason.name, error.message.replace(uri, "IN"))
    # Inputs repeat a row where its content is of no interest; tests/stages/dataset/test_repeated.py is about these warnings.
    warnings = [text for text in finished.warnings if "an earlier row" not in text and "also trained on" not in text]
    return published(context.path(context.layout.datasets), tuple(warnings))


def published(folder: Path, warnings: tuple[str, ...]) -> Published:
    """Return the content of ``folder``; every line must be strict JSON."""
    lines = (folder / "train.jsonl").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert not any(b"\r" in line for line in lines)
    locations = np.load(folder / "train.locations.npy").tolist()
    return Published([json.loads(line, parse_constant=pytest.fail) for line in lines], locations, "; ".join(warnings))


def tar_of(content: bytes) -> bytes:
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo("in.jsonl")
        member.size = len(content)
        archive.addfile(member, BytesIO(content))
    return stream.getvalue()


def table_bytes(rows: list[Any], kind: str = "parquet") -> bytes:
    stream, table = BytesIO(), pa.Table.from_pylist(rows)
    if kind == "parquet":
        parquet_format.write_table(table, stream)
    else:
        with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(stream, table.schema) as writer:
            writer.write_table(table)
    return stream.getvalue()


def rejected_format(what: str, remedy: str = "convert it to JSON Lines, one object a line") -> Rejected:
    return Rejected("DatasetUnreadable", f"IN: is not JSON or JSON Lines and looks like {what}; {remedy}.")


PRETTY = json.dumps(VALUE, indent=2).encode()
NOTE = "outside of messages and tools: NaN and infinite numbers are not JSON and are written as null."


@reports(
    Report("carriage-return-between-tokens", "volcengine/OpenViking#3988", File(ROW.replace(b" [", b"\r[") + b"\n"), Published([VALUE], [[1, 1]])),
    Report("carriage-return-ends-lines", "own", File((ROW + b"\r") * 2), Published([VALUE] * 2, [[1, 1], [2, 2]])),
    Report(
        "carriage-return-ends-some-lines", "own", File(ROW + b"\r" + ROW + b"\r\n" + ROW + b"\n"),
        Published([VALUE] * 3, [[1, 1], [2, 2], [3, 3]]),
    ),
    Report(
        "carriage-return-lines-with-a-broken-row", "own", File(ROW + b"\r{\r" + ROW),
        Rejected(
            "DatasetUnreadable",
            "IN: row 2 (line 2) is not JSON (Expecting property name enclosed in double quotes at character 2)"
            " (1 of 3 rows is not JSON); correct it, or write the file again.",
        ),
    ),
    Report("carriage-return-in-an-array", "own", File(b"[\r" + ROW + b",\r" + ROW + b"\r]"), Published([VALUE] * 2, [[1, 2], [2, 3]])),
    Report("line-separators-in-text", "huggingface/tau#354", File(ROW.replace(b'"a"', '"a\u2028\x85b"'.encode())), Published(
        [{"messages": [VALUE["messages"][0], {"role": "assistant", "content": "a\u2028\x85b"}]}], [[1, 1]],
    )),
    Report("pretty-object", "own", File(PRETTY, "in.json"), Published([VALUE], [[1, 1]])),
    Report("pretty-objects-one-after-another", "own", File(PRETTY + b"\n\n" + PRETTY, "in.json"), Published([VALUE] * 2, [[1, 1], [2, 14]])),
    Report("pretty-object-with-windows-lines", "own", File(PRETTY.replace(b"\n", b"\r\n")), Published([VALUE], [[1, 1]])),
    Report("pretty-object-with-macintosh-lines", "own", File(PRETTY.replace(b"\n", b"\r")), Published([VALUE], [[1, 1]])),
    Report(
        "pretty-object-with-a-fault", "own", File(PRETTY.replace(b'"user",', b'"user"')),
        Rejected(
            "DatasetUnreadable",
            "IN: row 1 (line 1) is not JSON (Expecting ',' delimiter at character 7 of its line 5)"
            " (1 of 1 rows is not JSON); correct it, or write the file again.",
        ),
    ),
    Report(
        "pretty-object-cut-off", "own", File(PRETTY[:-3]),
        Rejected(
            "DatasetUnreadable",
            "IN: line 11 is not JSON (Expecting ',' delimiter); write an array of objects, or one object per line.",
        ),
    ),
    Report(
        "nan-in-a-column", "own", File(ROW[:-1] + b', "score": NaN, "text": "NaN"}'),
        Published([{**VALUE, "score": None, "text": "NaN"}], [[1, 1]], f"IN: 1 row (row 1 (line 1)) {NOTE}"),
    ),
    Report(
        "infinity-in-columns-of-an-array", "own", File(b"[" + ROW[:-1] + b', "score": [-Infinity, Infinity]}]', "in.json"),
        Published([{**VALUE, "score": [None, None]}], [[1, 1]], f"IN: 1 row (row 1 (line 1)) {NOTE}"),
    ),
    Report(
        "nan-in-messages", "own", File(ROW.replace(b'"q"', b'"q", "id": NaN') + b"\n" + ROW),
        Rejected(
            "BadRow",
            "IN: row 1 (line 1) has NaN or an infinite number in messages, which JSON does not have (1 of 2 rows is bad); correct it, or"
            " leave bad rows out with dataset.badRows.policy Drop and dataset.badRows.share 0.5.",
        ),
    ),
    Report(
        "number-beyond-what-a-float-holds", "own", File(ROW.replace(b'"q"', b'"q", "id": 1e400')),
        Rejected(
            "BadRow",
            "IN: row 1 (line 1) has NaN or an infinite number in messages, which JSON does not have (1 of 1 rows is bad); correct it.",
        ),
    ),
    Report(
        "whole-number-that-python-does-not-read", "own", File(ROW.replace(b'"q"', b'"q", "id": ' + b"9" * 5000)),
        Rejected(
            "DatasetUnreadable",
            "IN: row 1 (line 1) is not JSON that can be read (an integer has more than 4,300 digits)"
            " (1 of 1 rows is not JSON); correct it, or write the file again.",
        ),
    ),
    Report("byte-order-mark-of-a-joined-file", "own", File(b"\xef\xbb\xbf" + ROW + b"\n\xef\xbb\xbf" + ROW), Published([VALUE] * 2, [[1, 1], [2, 2]])),
    Report("gzip-content", "own", File(gzip.compress(ROW + b"\n" + ROW)), Published([VALUE] * 2, [[1, 1], [2, 2]])),
    Report("gzip-content-of-an-array", "own", File(gzip.compress(b"[" + ROW + b"]"), "in.json.gz"), Published([VALUE], [[1, 1]])),
    Report("bzip2-content", "own", File(bz2.compress(ROW), "in.jsonl.bz2"), Published([VALUE], [[1, 1]])),
    Report("xz-content", "own", File(lzma.compress(ROW), "in.jsonl.xz"), Published([VALUE], [[1, 1]])),
    Report(
        "gzip-content-cut-off", "own", File(gzip.compress(ROW)[:-9]),
        Rejected(
            "DatasetUnreadable",
            "IN: is a damaged gzip file (Compressed file ended before the end-of-stream marker was reached); download or compress it again.",
        ),
    ),
    Report("gzip-content-damaged", "own", File(gzip.compress(ROW)[:-8] + bytes(8)), Rejected(
        "DatasetUnreadable", f"IN: is a damaged gzip file (CRC check failed 0x0 != {zlib.crc32(ROW):#x}); download or compress it again.",
    )),
    Report("tar-in-gzip", "own", File(gzip.compress(tar_of(ROW)), "in.tgz"), rejected_format("a tar archive", "unpack it and name the file inside")),
    Report("zip-archive", "own", File(b"PK\x03\x04 and so on", "in.zip"), rejected_format("a zip archive or an Excel workbook", "unpack it and name the file inside, or save the workbook as CSV")),
    Report("zstandard", "own", File(b"\x28\xb5\x2f\xfd and so on", "in.jsonl.zst"), Rejected(
        "DatasetUnreadable", "IN: is a damaged Zstandard file (ZSTD decompress failed: Data corruption detected); download or compress it again.",
    )),
    Report("csv-by-name", "own", File(b'messages,n\n"[{""role"": ""user"", ""content"": ""q""}, {""role"": ""assistant"", ""content"": ""a""}]",007\n', "in.csv"), Published(
        [{**VALUE, "n": "007"}], [[1, 2]], "IN: the text in column messages is read as JSON.",
    )),
    Report("csv-by-content", "own", File(b'"prompt","completion"\n"q, or so","a"\n', "in.jsonl"), rejected_format('CSV (its first line is "prompt","completion")', "name it .csv, or convert it to JSON Lines, one object a line")),
    Report("tsv-by-content", "own", File(b"prompt\tcompletion\nq\ta\n", "in.jsonl"), rejected_format("TSV (its first line is prompt\tcompletion)", "name it .tsv, or convert it to JSON Lines, one object a line")),
    Report("yaml", "own", File(b"messages:\n- role: user\n", "in.yaml"), rejected_format("YAML (its first line is messages:)")),
    Report("parquet-named-jsonl", "own", File(table_bytes([VALUE])), Published([VALUE], [[1, 0]])),
    Report("arrow-file", "own", File(table_bytes([VALUE], "file"), "in.arrow"), Published([VALUE], [[1, 0]])),
    Report("arrow-stream", "own", File(table_bytes([VALUE], "stream"), "in.arrow"), Published([VALUE], [[1, 0]])),
    Report("utf-16-without-a-mark", "own", File(ROW.decode().encode("utf-16-le")), rejected_format("UTF-16 text", "save it as UTF-8")),
    Report(
        "git-lfs-pointer", "huggingface/transformers#27923", File(POINTER),
        Rejected("DatasetUnreadable", "IN: is a Git LFS pointer, not the file itself; run git lfs pull in its repository."),
    ),
    Report(
        "all-bad-rows-are-counted", "own", File(b"\n".join([b'{"messages": []}', ROW] * 5)),
        Rejected(
            "BadRow",
            "IN: row 1 (line 1) has an empty list of messages; row 3 (line 3) has an empty list of messages; row 5 (line 5) has an empty"
            " list of messages; ... (5 of 10 rows are bad); correct them, or leave bad rows out with dataset.badRows.policy Drop and"
            " dataset.badRows.share 0.5.",
        ),
    ),
    Report(
        "the-share-that-is-set-is-not-enough", "own", File(b"\n".join([b'{"messages": []}', ROW, ROW]), inputs={"bad_rows": "Drop", "bad_rows_share": 0.1}),
        Rejected(
            "BadRow",
            "IN: 1 of 3 rows is bad, more than dataset.badRows.share 0.1 allows: row 1 (line 1) has an empty list of messages; correct"
            " them, or raise dataset.badRows.share to 0.34.",
        ),
    ),
    Report(
        "no-remedy-that-leaves-nothing", "own", File(b'{"messages": []}', inputs={"bad_rows": "Drop", "bad_rows_share": 0.1}),
        Rejected(
            "BadRow",
            "IN: 1 of 1 rows is bad, more than dataset.badRows.share 0.1 allows: row 1 (line 1) has an empty list of messages; correct them.",
        ),
    ),
    Report(
        "a-share-that-a-float-holds-inexactly", "own",
        File(b"\n".join([b'{"messages": []}'] * 29 + [ROW] * 71), inputs={"bad_rows": "Drop", "bad_rows_share": 0.29}),
        Published([VALUE] * 71, [[number, number] for number in range(30, 101)]),
    ),
)  # fmt: skip
def test_files(report: Report, tmp_path: Path) -> None:
    source = tmp_path / report.given.name
    source.write_bytes(report.given.content)
    found = run_in_process(tmp_path, str(source), report.given.inputs)
    if isinstance(found, Published):
        found = Published(found.rows, found.locations, found.warning.replace(str(source), "IN"))
    assert found == report.expected


GOOD, BAD_ROWS = (ROW + b"\n") * 18, b'{"messages": []}\n' * 2


@reports(
    Report("bad-rows-of-a-split", "own", {"train": GOOD + BAD_ROWS, "inputs": {"train_split": 0.5}}, 1.0),
    Report("bad-rows-of-the-held-out-source", "own", {"train": GOOD, "eval": GOOD + BAD_ROWS}, 0.0),
    Report("bad-rows-of-the-source-to-train-on", "own", {"train": GOOD + BAD_ROWS, "eval": GOOD}, 2.0),
    Report("one-file-to-train-on-and-to-measure", "own", {"train": GOOD + BAD_ROWS, "same": True}, 2.0),
)
def test_only_bad_rows_that_would_be_trained_on_count_against_the_limit(report: Report, tmp_path: Path) -> None:
    inputs = {"bad_rows": "Drop", "bad_rows_share": 0.1, **report.given.get("inputs", {})}
    for name in ("train", "eval"):
        (tmp_path / name).write_bytes(report.given.get(name, b""))
    if "eval" in report.given or "same" in report.given:
        inputs["eval_uri"] = str(tmp_path / ("eval" if "eval" in report.given else "train"))
    found = run_in_process(tmp_path, str(tmp_path / "train"), inputs)
    assert isinstance(found, Published)
    seal = read_seal(tmp_path / "workspace" / RUN.layout.datasets)
    assert seal is not None
    assert bad_in_training(seal, int(seal.note["trainRows"]), int(seal.note["evalRows"])) == report.expected


def test_warnings_name_the_files_of_the_run_that_gets_them(tmp_path: Path) -> None:
    content = ROW[:-1] + b', "score": NaN}\n'
    for number, names in enumerate((("a", "b"), ("c", "d"))):
        files = [tmp_path / name for name in names]
        files[0].write_bytes(content)
        files[1].write_bytes(content * 2)
        run = RunInfo(f"run-{names[0]}", "team-a", str(number) * 16)
        found = run_in_process(tmp_path, str(files[0]), {"eval_uri": str(files[1])}, run)
        assert isinstance(found, Published)
        assert (
            found.warning
            == f"{files[0]}: 1 row (row 1 (line 1)) {NOTE}; {files[1]}: 2 rows (row 1 (line 1), row 2 (line 2)) {NOTE}"
        )
    assert len(list((tmp_path / "workspace/cache/datasets").iterdir())) == 1


@reports(
    Report(
        "nul-in-a-path",
        "own",
        "/data/a\0b.jsonl",
        "dataset.uri: '/data/a\\x00b.jsonl' has a control character or half of a character; remove it.",
    ),
    Report("nul-in-a-file-uri", "own", "file:///data/a%00b.jsonl", "is not a file URI; "),
    Report(
        "half-a-character-in-a-path",
        "own",
        "/data/\ud800.jsonl",
        "has a control character or half of a character; remove it.",
    ),
    Report(
        "no-internet-address",
        "own",
        "https://[x/rows.jsonl",
        "dataset.uri: https://[x/rows.jsonl is not a web address, its host or port is malformed; write https://<host>/<file>.",
    ),
)
def test_addresses(report: Report, tmp_path: Path) -> None:
    found = run_in_process(tmp_path, report.given, {})
    assert isinstance(found, Rejected)
    assert found.reason == "DatasetNotFound"
    assert report.expected in found.message.replace("IN", report.given)


def calls(*arguments: Any) -> list[Any]:
    """Rows whose tool calls have these arguments."""
    return [
        {"messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": None, "tool_calls": [
                {"type": "function", "function": {"name": "f", "arguments": each}},
            ]},
            {"role": "tool", "content": "1"},
            {"role": "assistant", "content": "ok"},
        ]}
        for each in arguments
    ]  # fmt: skip


def json_lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


BINARY = {"messages": [{"role": "user", "content": b"hello"}, {"role": "assistant", "content": b"w\xc3\xb6rld"}]}
NOT_TEXT = {"messages": [{"role": "user", "content": b"hello"}, {"role": "assistant", "content": b"w\xf6rld"}]}
NULLS = calls({"x": None}, {"y": None})


@reports(
    Report("real-nulls", "own", {"train.jsonl": json_lines(NULLS)}, Published(NULLS, [[1, 1], [2, 2]])),
    Report(
        "shards-compressed-and-not", "own", {"data/train-0.jsonl": json_lines(NULLS[:1]), "data/train-1.jsonl.gz": gzip.compress(json_lines(NULLS[1:]))},
        Published(NULLS, [[1, 0], [2, 0]]),
    ),
    Report(
        "binary-content", "own", {"train.parquet": table_bytes([BINARY])},
        Published([{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "wörld"}]}], [[1, 0]]),
    ),
    Report(
        "binary-content-that-is-no-text", "own", {"train.parquet": table_bytes([BINARY, NOT_TEXT])},
        Rejected(
            "BadRow",
            "IN: row 2 has bytes in column messages that are not UTF-8 text (1 of 2 rows is bad); correct it, or leave bad rows"
            " out with dataset.badRows.policy Drop and dataset.badRows.share 0.5.",
        ),
    ),
    Report(
        "no-data-files", "own", {"README.md": b"hi"},
        Rejected("DatasetUnreadable", "IN: it has no data files (only README.md); use a dataset with JSON, JSON Lines or Parquet files."),
    ),
    Report(
        "a-script", "own", {"script.py": b"print(1)"},
        Rejected(
            "DatasetUnreadable",
            "IN: it is a script (script.py), which the datasets library no longer runs, and has no data files; set dataset.revision to"
            " refs/convert/parquet if the hub has converted it, or use a dataset of files.",
        ),
    ),
    Report(
        "a-pointer", "own", {"train.jsonl": POINTER},
        Rejected(
            "DatasetUnreadable", "IN/train.jsonl: is a Git LFS pointer, not the file itself; run git lfs pull in its repository.",
        ),
    ),
)  # fmt: skip
def test_data_sets_of_the_hub(report: Report, tmp_path: Path) -> None:
    programs = StagePrograms(tmp_path / "workspace")
    programs.workspace.mkdir()
    with Hub(tmp_path / "hub") as hub:
        hub.add("dataset", "org/set", report.given)
        inputs = DatasetInputs("org/set", train_split=1.0)
        ended = programs("dataset", inputs, environment={"HF_ENDPOINT": hub.url})
    assert ended.result is not None, ended.errors
    if ended.code:
        assert ended.code == 65
        assert Rejected(str(ended.reason), ended.result.message.replace("org/set", "IN")) == report.expected
    else:
        assert published(programs.path(programs.layout.datasets), ended.result.warnings) == report.expected
