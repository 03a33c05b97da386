"""Files of all kinds, directories, globs and claims: the rows that are read, and the sentence for each fault."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from finetune_contract.documents import RunInfo, StageDocument
from finetune_contract.workspace import Attempt
from finetune_stages.dataset import compressed, several_files
from finetune_stages.dataset.fetch import Source, find_source
from finetune_stages.dataset.source_request import TRAIN_SPLITS, SourceRequest
from finetune_stages.sdk import Context, StageError
from finetune_stages.sources.json_lines import write_locations, write_rows
from finetune_stages.sources.origin import DATASET

ROW = b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
VALUE = json.loads(ROW)


def zstandard(content: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(content, asbytes=True)
    return packed


def table(values: list[Any], how: Callable[[pa.Table, BytesIO], object] = parquet.write_table) -> bytes:
    stream = BytesIO()
    how(pa.Table.from_pylist(values), stream)
    return stream.getvalue()


def stream_of(content: pa.Table, stream: BytesIO) -> None:
    with pa.ipc.new_stream(stream, content.schema) as writer:
        writer.write_table(content)


def archive(kind: str) -> bytes:
    stream = BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as packed:
            packed.writestr("rows.jsonl", ROW)
    else:
        with tarfile.open(fileobj=stream, mode="w") as tar:
            member = tarfile.TarInfo("rows.jsonl")
            member.size = len(ROW)
            tar.addfile(member, BytesIO(ROW))
    return stream.getvalue()


def find(uri: str, folder: Path, **fields: Any) -> Source:
    folder.mkdir(parents=True, exist_ok=True)
    document = StageDocument(2, "dataset", RunInfo("demo", "team-a", "0123456789abcdef"), {})
    context = Context(document, folder, Attempt(1, 1), "0" * 64)
    return find_source(SourceRequest(uri, DATASET, TRAIN_SPLITS, **fields), context, folder)


def rows(uri: str, folder: Path, choose: Callable[[int], Any] = range) -> list[Any]:
    return [json.loads(text) for text in find(uri, folder).open(choose).rows.texts()]


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


KINDS = {
    "in.jsonl.zst": zstandard(ROW),
    "two-frames.zst": zstandard(ROW) + zstandard(ROW),
    "gzip-with-a-plain-name": gzip.compress(ROW),
    "in.json.bz2": bz2.compress(b"[" + ROW + b"]"),
    "in.xz": lzma.compress(ROW),
    "two-streams.bz2": bz2.compress(ROW) + bz2.compress(ROW),
    "two-streams.xz": lzma.compress(ROW) + bytes(8) + lzma.compress(ROW) + bytes(4),
    "in.parquet": table([VALUE]),
    "parquet-with-a-plain-name": table([VALUE]),
    "in.parquet.gz": gzip.compress(table([VALUE])),
    "in.arrow": table([VALUE], stream_of),
    "in.feather": table([VALUE], lambda content, stream: feather.write_feather(content, stream, compression="uncompressed")),
    "in.csv": b'messages\n"%s"\n' % ROW.strip().removeprefix(b'{"messages": ').removesuffix(b"}").replace(b'"', b'""'),
    "in.tsv.gz": gzip.compress(b"messages\n" + ROW.strip().removeprefix(b'{"messages": ').removesuffix(b"}").replace(b'"', b'""').join([b'"', b'"\n'])),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_has_the_rows_of_the_others(tmp_path: Path, name: str) -> None:
    write(tmp_path, {name: KINDS[name]})
    found = rows(str(tmp_path / name), tmp_path / "scratch")
    assert found == [VALUE] * (2 if name.startswith("two-") else 1)


def test_cells_are_text_and_lines_are_those_of_the_file(tmp_path: Path) -> None:
    cells = b'\xef\xbb\xbfid,prompt,completion\r\n007,"a ""b""\r\nc",1e3\r\n\r\n2024-01-01,,NaN\r\n'
    opened = find(str(write(tmp_path, {"in.csv": cells}) / "in.csv"), tmp_path / "scratch").open(range)
    assert [json.loads(text) for text in opened.rows.texts()] == [
        {"id": "007", "prompt": 'a "b"\r\nc', "completion": "1e3"}, {"id": "2024-01-01", "prompt": "", "completion": "NaN"},
    ]  # fmt: skip
    assert [opened.rows.label(position) for position in range(2)] == ["row 1 (line 2)", "row 2 (line 5)"]
    assert opened.notes == ()


def test_bad_rows_of_csv_are_rows_with_a_fault(tmp_path: Path) -> None:
    cells = b"messages,tools\n[],\nhello,\n[]\n[],[],[]\n"
    opened = find(str(write(tmp_path, {"in.csv": cells}) / "in.csv"), tmp_path / "scratch").open(lambda _total: [3, 2, 1, 0])
    assert [opened.rows.fault(position) for position in range(4)] == [
        "has 3 cells, and the header has 2", "has 1 cell, and the header has 2",
        "has text in column messages that is not JSON (Expecting value at character 1)", None,
    ]  # fmt: skip
    assert json.loads(list(opened.rows.texts())[3]) == {"messages": []}, "an empty cell of JSON text is left out"
    assert opened.notes == ("the text in column messages and tools is read as JSON.",)


def test_json_over_several_lines_is_published_on_one(tmp_path: Path) -> None:
    write(tmp_path / "d", {"a.csv": b'messages\n"[\n {""a"":\r\n 1}]"\n', "b.json": json.dumps(VALUE, indent=2).encode()})
    write_rows(tmp_path / "out.jsonl", find(f"{tmp_path}/d", tmp_path / "scratch").open(range).rows, lambda _rows: None)
    lines = (tmp_path / "out.jsonl").read_bytes().splitlines()
    assert [json.loads(line) for line in lines] == [{"messages": [{"a": 1}]}, VALUE]


def numbered(*numbers: int) -> bytes:
    return b"".join(b'{"n": %d}\n' % number for number in numbers)


FOLDER = {
    "b.jsonl": numbered(2, 3), "a.jsonl.gz": gzip.compress(numbered(0, 1)), "c/d.parquet": table([{"n": 4}, {"n": 5}]),
    "c/e.csv": b"n\n6\n7\n", ".hidden.jsonl": b"x", ".cache/x.jsonl": b"x", "_SUCCESS": b"", "README.md": b"x", "dataset_info.json": b"{}",
}  # fmt: skip


def test_a_directory_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    write(tmp_path / "data", FOLDER)
    opened = find(f"{tmp_path}/data/", tmp_path / "scratch").open(range)
    assert [int(json.loads(text)["n"]) for text in opened.rows.texts()] == list(range(8))
    assert opened.total == 8
    assert opened.notes == ("files that are not named like data are left out: README.md, dataset_info.json.",)
    assert [opened.rows.label(position) for position in (1, 2, 5, 7)] == [
        f"row 2 (line 2) of {tmp_path}/data/a.jsonl.gz", f"row 1 (line 1) of {tmp_path}/data/b.jsonl",
        f"row 2 of {tmp_path}/data/c/d.parquet", f"row 2 (line 3) of {tmp_path}/data/c/e.csv",
    ]  # fmt: skip


def test_a_selection_of_several_files_keeps_its_order_and_its_faults(tmp_path: Path) -> None:
    write(tmp_path / "data", {**FOLDER, "z.csv": b"n,m\n8\n"})
    opened = find(f"{tmp_path}/data", tmp_path / "scratch").open(lambda _total: [8, 7, 0, 4, 3])
    assert [int(json.loads(text)["n"]) for text in opened.rows.texts()] == [8, 7, 0, 4, 3]
    write_locations(tmp_path / "locations.npy", opened.rows)
    assert np.load(tmp_path / "locations.npy").tolist() == [[9, 0], [8, 0], [1, 0], [5, 0], [4, 0]]
    chosen = opened.rows.select([4, 0])
    assert [chosen.label(position) for position in range(2)] == [
        f"row 2 (line 2) of {tmp_path}/data/b.jsonl", f"row 1 (line 2) of {tmp_path}/data/z.csv",
    ]  # fmt: skip
    assert [chosen.fault(position) for position in range(2)] == [None, "has 1 cell, and the header has 2"]


def test_links_to_directories_are_read_once(tmp_path: Path) -> None:
    for name, number in (("rows/a.jsonl", 1), ("other/b.jsonl", 2), ("other/deep/c.jsonl", 3)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f'{{"n": {number}}}\n')
    (tmp_path / "rows/part").symlink_to("../other")
    (tmp_path / "rows/part-again").symlink_to("part")
    (tmp_path / "other/deep/loop").symlink_to("../../rows")
    assert [row["n"] for row in rows(str(tmp_path / "rows"), tmp_path / "work")] == [1, 2, 3]


def test_a_file_without_rows_among_others_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    for name, content in (("a.jsonl", ROW), ("b.jsonl", b""), ("c.csv", b""), ("d.csv", b"n\n")):
        (tmp_path / "rows" / name).write_bytes(content)
    opened = find(str(tmp_path / "rows"), tmp_path / "work").open(range)
    assert opened.notes == (f"files have no rows: {tmp_path}/rows/b.jsonl, {tmp_path}/rows/c.csv, {tmp_path}/rows/d.csv.",)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (None, "x.jsonl is a device, a pipe or a socket; set a file."),
        ("nothing", "x.jsonl is a link that leads to no file; correct or remove it."),
        ("x.jsonl", "x.jsonl is a link that leads to no file; correct or remove it."),
    ],
)
def test_an_entry_that_is_no_file(tmp_path: Path, target: str | None, words: str) -> None:
    (tmp_path / "rows").mkdir()
    entry = tmp_path / "rows/x.jsonl"
    if target:
        entry.symlink_to(target)
    else:
        os.mkfifo(entry)
    with pytest.raises(StageError) as caught:
        find(str(tmp_path / "rows"), tmp_path / "work")
    assert caught.value.message == f"dataset.uri: {tmp_path}/rows/{words}"


def test_globs(tmp_path: Path) -> None:
    write(tmp_path / "data", FOLDER)
    for pattern, expected in (("*.jsonl", [2, 3]), ("?.jsonl*", [0, 1, 2, 3]), ("**/[de].*", [4, 5, 6, 7]), ("c/*.csv", [6, 7])):
        found = rows(f"{tmp_path}/data/{pattern}", tmp_path / "scratch" / str(len(pattern)))
        assert [int(row["n"]) for row in found] == expected, pattern
    write(tmp_path, {"really[1].jsonl": numbered(9)})
    assert rows(f"{tmp_path}/really[1].jsonl", tmp_path / "other") == [{"n": 9}]


def test_a_digest_covers_all_files_and_how_they_are_read(tmp_path: Path) -> None:
    write(tmp_path, {"data/a.jsonl": ROW, "data/b.jsonl": ROW, "x.csv": b"n\n1\n", "x.tsv": b"n\n1\n"})
    digests = [find(f"{tmp_path}/{path}", tmp_path / "scratch").digest for path in ("data", "data/a.jsonl", "x.csv", "x.tsv")]
    assert len(set(digests)) == 4
    (tmp_path / "data" / "b.jsonl").write_bytes(ROW + ROW)
    assert find(f"{tmp_path}/data", tmp_path / "scratch").digest not in digests


@pytest.fixture
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mount point of a claim with rows."""
    monkeypatch.setenv("FINETUNE_CLAIMS", str(tmp_path / "claims"))
    return write(tmp_path / "claims" / "mine", {"a/1.jsonl": numbered(1), "a/2.jsonl": numbered(2)})


@pytest.mark.parametrize(("path", "expected"), [("a/1.jsonl", [1]), ("a", [1, 2]), ("a/", [1, 2]), ("**/2.*", [2])])
def test_a_claim(tmp_path: Path, claims: Path, path: str, expected: list[int]) -> None:
    source = find(f"pvc://mine/{path}", tmp_path / "scratch")
    assert source.name == f"pvc://mine/{path.rstrip('/')}"
    opened = source.open(range)
    assert [json.loads(text)["n"] for text in opened.rows.texts()] == expected


def test_a_link_out_of_a_claim(tmp_path: Path, claims: Path) -> None:
    write(tmp_path, {"secret.jsonl": ROW})
    (claims / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (claims / "inner.jsonl").symlink_to("a/1.jsonl")
    assert rows("pvc://mine/inner.jsonl", tmp_path / "scratch") == [{"n": 1}]
    assert rejected("pvc://mine/link.jsonl", tmp_path) == (
        "DatasetNotFound", "dataset.uri: pvc://mine/link.jsonl is a link to a file outside of the claim; set a file on the claim.",
    )  # fmt: skip
    assert rejected("pvc://other/x", tmp_path)[1] == (
        "dataset.uri: claim other is not mounted below the directory in FINETUNE_CLAIMS; mount it there."
    )
    assert (
        rejected("pvc://mine/b.jsonl", tmp_path)[1] == "dataset.uri: there is no dataset at pvc://mine/b.jsonl; correct the path."
    )


def rejected(uri: str, tmp_path: Path, **fields: Any) -> tuple[str, str]:
    with pytest.raises(StageError) as caught:
        find(uri, tmp_path / "scratch", **fields).open(range)
    return caught.value.reason.name, caught.value.message.replace(f"{tmp_path}/", "")


CUT = zstandard(ROW * 1000)[:40]
BROKEN: list[tuple[str, dict[str, bytes], str, str]] = [
    ("none.jsonl", {}, "DatasetNotFound", "dataset.uri: there is no dataset at none.jsonl; correct the path."),
    ("a.jsonl,b.jsonl", {"a.jsonl": ROW}, "DatasetNotFound", "dataset.uri: there is no dataset at a.jsonl,b.jsonl; set one location, a directory or a glob such as ./*.jsonl."),
    ("*.jsonl", {"a.json": ROW}, "DatasetNotFound", "dataset.uri: no file matches *.jsonl; correct the pattern (* matches no /, ** does)."),
    ("d", {"d/x.md": b"x", "d/y.png": b"x", "d/z.py": b"x", "d/z.txt": b""}, "DatasetNotFound", "dataset.uri: d/ has no data files (only x.md, y.png, z.py and 1 more); files are named .jsonl, .json, .csv, .tsv, .parquet or .arrow."),
    ("d", {"d/.x.jsonl": ROW}, "DatasetNotFound", "dataset.uri: d/ has no data files (nothing); files are named .jsonl, .json, .csv, .tsv, .parquet or .arrow."),
    ("d", {"d/train.jsonl": ROW, "d/dev.jsonl": ROW}, "DatasetUnreadable", "dataset.uri: d/ has files of several splits (dev.jsonl, train.jsonl); set dataset.uri to d/train.jsonl and dataset.evalUri to d/dev.jsonl."),
    ("d", {"d/train/1.parquet": b"", "d/validation/1.parquet": b""}, "DatasetUnreadable", "dataset.uri: d/ has files of several splits (train/1.parquet, validation/1.parquet); set dataset.uri to d/train/** and dataset.evalUri to d/validation/**."),
    ("d", {"d/test.jsonl": ROW, "d/dev.jsonl": ROW}, "DatasetUnreadable", "dataset.uri: d/ has files of several splits (dev.jsonl, test.jsonl); set dataset.uri to the files to train on, and dataset.evalUri to those to hold out."),
    ("d", {"d/trainData.jsonl": ROW, "d/TESTRows.jsonl": ROW}, "DatasetUnreadable", "dataset.uri: d/ has files of several splits (TESTRows.jsonl, trainData.jsonl); set dataset.uri to d/trainData.jsonl and dataset.evalUri to d/TESTRows.jsonl."),
    ("d", {"d/train/a.jsonl": ROW, "d/heldout/b.jsonl": ROW}, "DatasetUnreadable", "dataset.uri: d/ has files of several splits (heldout/b.jsonl, train/a.jsonl); set dataset.uri to d/train/** and dataset.evalUri to d/heldout/**."),
    ("d", {"d/a.jsonl": ROW, "d/b.jsonl": b"<html>", "d/c.jsonl": ROW}, "DatasetUnreadable", "d/b.jsonl: is not JSON or JSON Lines and looks like a web page (HTML or XML); name the address or the path of the data itself."),
    ("d", {"d/a.jsonl": ROW, "d/b.parquet": b"PAR1 and so on"}, "DatasetUnreadable", "d/b.parquet: is a damaged Parquet file (Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file); write or download it again."),
    ("d", {"d/a.jsonl": b"", "d/b.jsonl": b"\n"}, "DatasetEmpty", "d: has no rows; set a file with one chat row per line."),
    ("x.jsonl", {"x.jsonl": b""}, "DatasetEmpty", "x.jsonl: has no rows; set a file with one chat row per line."),
    ("x.json", {"x.json": b"[]"}, "DatasetEmpty", "x.json: has no rows; set a file with one chat row per line."),
    ("x.csv", {"x.csv": b""}, "DatasetEmpty", "x.csv: has no rows; set a file with one chat row per line."),
    ("x.csv", {"x.csv": b"messages\n"}, "DatasetEmpty", "x.csv: has no rows; set a file with one chat row per line."),
    ("x.parquet", {"x.parquet": table([VALUE])[:-20]}, "DatasetUnreadable", "x.parquet: is a damaged Parquet file (Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file); write or download it again."),
    ("x.parquet", {"x.parquet": table([VALUE], stream_of)[:60]}, "DatasetUnreadable", "x.parquet: is a damaged Arrow file (Expected to read 248 metadata bytes, but only read 52); write or download it again."),
    ("x.gz", {"x.gz": gzip.compress(ROW)[:-9]}, "DatasetUnreadable", "x.gz: is a damaged gzip file (Compressed file ended before the end-of-stream marker was reached); download or compress it again."),
    ("x.gz", {"x.gz": gzip.compress(ROW) + b"more"}, "DatasetUnreadable", "x.gz: is a damaged gzip file (Not a gzipped file (b'mo')); download or compress it again."),
    ("x.gz", {"x.gz": gzip.compress(gzip.compress(ROW))}, "DatasetUnreadable", "x.gz: is not JSON or JSON Lines and looks like a gzip archive inside a compressed file; unpack it and name the file inside."),
    ("x.bz2", {"x.bz2": bz2.compress(ROW)[:-4]}, "DatasetUnreadable", "x.bz2: is a damaged bzip2 file (Compressed file ended before the end-of-stream marker was reached); download or compress it again."),
    ("x.xz", {"x.xz": lzma.compress(ROW)[:-4]}, "DatasetUnreadable", "x.xz: is a damaged xz file (Compressed file ended before the end-of-stream marker was reached); download or compress it again."),
    ("x.bz2", {"x.bz2": bz2.compress(ROW) + bytes([bz2.compress(ROW)[0] ^ 0x20]) + bz2.compress(ROW)[1:]}, "DatasetUnreadable", "x.bz2: is a damaged bzip2 file (Invalid data stream); download or compress it again."),
    ("x.bz2", {"x.bz2": bz2.compress(ROW) + bz2.compress(ROW)[:-4]}, "DatasetUnreadable", "x.bz2: is a damaged bzip2 file (Compressed file ended before the end-of-stream marker was reached); download or compress it again."),
    ("x.xz", {"x.xz": lzma.compress(ROW) + bytes([lzma.compress(ROW)[0] ^ 0x20]) + lzma.compress(ROW)[1:]}, "DatasetUnreadable", "x.xz: is a damaged xz file (Input format not supported by decoder); download or compress it again."),
    ("x.zst", {"x.zst": CUT}, "DatasetUnreadable", "x.zst: is a damaged Zstandard file (Truncated compressed stream); download or compress it again."),
    ("x.zst", {"x.zst": zstandard(ROW) + b"more"}, "DatasetUnreadable", "x.zst: is a damaged Zstandard file (ZSTD decompress failed: Unknown frame descriptor); download or compress it again."),
    ("x.zip", {"x.zip": archive("zip")}, "DatasetUnreadable", "x.zip: is not JSON or JSON Lines and looks like a zip archive or an Excel workbook; unpack it and name the file inside, or save the workbook as CSV."),
    ("x.tar", {"x.tar": archive("tar")}, "DatasetUnreadable", "x.tar: is not JSON or JSON Lines and looks like a tar archive; unpack it and name the file inside."),
    ("x.tar.gz", {"x.tar.gz": gzip.compress(archive("tar"))}, "DatasetUnreadable", "x.tar.gz: is not JSON or JSON Lines and looks like a tar archive; unpack it and name the file inside."),
    ("x.tar.zst", {"x.tar.zst": zstandard(archive("tar"))}, "DatasetUnreadable", "x.tar.zst: is not JSON or JSON Lines and looks like a tar archive; unpack it and name the file inside."),
    ("x.jsonl", {"x.jsonl": b"7z\xbc\xaf\x27\x1c"}, "DatasetUnreadable", "x.jsonl: is not JSON or JSON Lines and looks like a 7z archive; unpack it and name the file inside."),
    ("x.jsonl", {"x.jsonl": b"\x89HDF\r\n"}, "DatasetUnreadable", "x.jsonl: is not JSON or JSON Lines and looks like HDF5; convert it to JSON Lines, one object a line."),
    ("x.orc", {"x.orc": b"ORC\x00"}, "DatasetUnreadable", "x.orc: is not JSON or JSON Lines and looks like ORC; convert it to JSON Lines, one object a line."),
    ("x.avro", {"x.avro": b"Obj\x01"}, "DatasetUnreadable", "x.avro: is not JSON or JSON Lines and looks like Avro; convert it to JSON Lines, one object a line."),
    ("x.pkl", {"x.pkl": b"\x80\x04\x95"}, "DatasetUnreadable", "x.pkl: is not JSON or JSON Lines and looks like a Python pickle; convert it to JSON Lines, one object a line."),
    ("x.feather", {"x.feather": b"FEA1\x00\x00"}, "DatasetUnreadable", "x.feather: is not JSON or JSON Lines and looks like a Feather file of version 1; write it as Feather of version 2, or as Parquet."),
    ("x.xls", {"x.xls": b"\xd0\xcf\x11\xe0"}, "DatasetUnreadable", "x.xls: is not JSON or JSON Lines and looks like an Excel workbook; convert it to JSON Lines, one object a line."),
    ("x.pdf", {"x.pdf": b"%PDF-1.7"}, "DatasetUnreadable", "x.pdf: is not JSON or JSON Lines and looks like PDF; convert it to JSON Lines, one object a line."),
    ("x.txt", {"x.txt": b"prompt,completion\nq,a\n"}, "DatasetUnreadable", "x.txt: is not JSON or JSON Lines and looks like plain text (its first line is prompt,completion); convert it to JSON Lines, one object a line."),
    ("x", {"x": b"prompt,completion\nq,a\n"}, "DatasetUnreadable", "x: is not JSON or JSON Lines and looks like CSV (its first line is prompt,completion); name it .csv, or convert it to JSON Lines, one object a line."),
    ("x", {"x": b"prompt\tcompletion\nq\ta\n"}, "DatasetUnreadable", "x: is not JSON or JSON Lines and looks like TSV (its first line is prompt\tcompletion); name it .tsv, or convert it to JSON Lines, one object a line."),
    ("x.jsonl", {"x.jsonl": "\ufeff{}".encode("utf-16-le")}, "DatasetUnreadable", "x.jsonl: is not JSON or JSON Lines and looks like UTF-16 text; save it as UTF-8."),
    ("x.csv", {"x.csv": b"a,a\n1,2\n"}, "DatasetUnreadable", "x.csv: its header has column 'a' twice; rename one of the two columns."),
    ("x.csv", {"x.csv": b"a;b\n1;2\n"}, "DatasetUnreadable", "x.csv: its cells are separated by semicolons (a;b); separate them by commas."),
    ("x.csv", {"x.csv": b'a,b\n1,2\n3,"4\n5,6\n'}, "DatasetUnreadable", "x.csv: the quote that is opened in the row at line 3 is not closed; correct it."),
    ("x.csv", {"x.csv": b'a,b\n1,"2"x\n'}, "DatasetUnreadable", "x.csv: the row at line 2 is not a row of CSV (',' expected after '\"'); correct it."),
    ("x.csv", {"x.csv": b"a,b\n\xff,2\n"}, "DatasetUnreadable", "x.csv: line 2 is not UTF-8 (byte 0xff at byte 1); save it as UTF-8."),
    ("x.csv", {"x.csv": "a,b\n1,2\n".encode("utf-16")}, "DatasetUnreadable", "x.csv: line 1 is not UTF-8 (byte 0xff at byte 1); save it as UTF-8."),
    ("x.jsonl", {"x.jsonl": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"}, "DatasetUnreadable", "x.jsonl: is a Git LFS pointer, not the file itself; run git lfs pull in its repository."),
]  # fmt: skip


@pytest.mark.parametrize(("name", "files", "reason", "sentence"), BROKEN)
def test_each_broken_file_has_a_reason_and_one_sentence(
    tmp_path: Path, name: str, files: dict[str, bytes], reason: str, sentence: str
) -> None:
    write(tmp_path, files)
    assert rejected(f"{tmp_path}/{name}", tmp_path) == (reason, sentence)


def test_fields_that_do_not_apply(tmp_path: Path) -> None:
    write(tmp_path / "d", {"a.jsonl": ROW, "b.jsonl": ROW})
    assert rejected(f"{tmp_path}/d", tmp_path, sha256="0" * 64) == (
        "BadDocument", "dataset.sha256: it applies to one file, and d has 2; remove it, or set one file.",
    )  # fmt: skip
    assert rejected(f"{tmp_path}/d", tmp_path, split="train")[1] == "dataset.split: it applies to hub datasets only; remove it."


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard])
def test_a_small_file_with_a_large_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(compressed, "_LEAST", 1 << 20)
    write(tmp_path, {"x.jsonl": pack(bytes(30 << 20))})
    most = max(1 << 20, 200 * (tmp_path / "x.jsonl").stat().st_size) >> 30
    assert rejected(f"{tmp_path}/x.jsonl", tmp_path) == (
        "DatasetUnreadable", f"x.jsonl: its content is larger than {most} GiB; unpack it and set the file inside.",
    )  # fmt: skip
    assert (tmp_path / "scratch" / "dataset.uri.0.unpacked").stat().st_size < 8 << 20


def test_a_small_parquet_file_with_a_large_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "_LEAST", 1 << 10)
    monkeypatch.setattr(compressed, "_RATIO", 2)
    content = table([{"n": "x" * 100_000 + str(number)} for number in range(20)])
    write(tmp_path, {"x.parquet": content})
    assert rejected(f"{tmp_path}/x.parquet", tmp_path)[1] == (
        "x.parquet: its content is larger than 0 GiB; write it with less compression, or as several files."
    )


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several_files, "MOST_FILES", 2)
    write(tmp_path / "d", {f"{number}.jsonl": ROW for number in range(3)})
    sentence = "has 3 files, and at most 2 are read; write larger files, or set a smaller location."
    assert rejected(f"{tmp_path}/d", tmp_path)[1] == f"dataset.uri: d/ {sentence}"
    assert rejected(f"{tmp_path}/d/*", tmp_path)[1] == f"dataset.uri: d/* {sentence}"
