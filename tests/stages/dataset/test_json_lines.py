"""Reading rows by number: every form of the file, every fault of it, and the text as it came."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune_contract.documents import DatasetInputs
from finetune_stages.dataset.check import check_rows
from finetune_stages.sdk import StageError
from finetune_stages.sdk.workspace import SealedFile
from finetune_stages.sources.json_lines import JsonLines, open_rows, write_rows
from finetune_stages.sources.json_text import may_have_non_finite, plain
from finetune_stages.sources.line_scan import index_lines
from finetune_stages.sources.value_scan import index_array, index_values


def opened(folder: Path, content: bytes):
    (folder / "data").write_bytes(content)
    return open_rows(folder / "data", "data", lambda _count: None)


def check(folder: Path, content: bytes, **stage_inputs):
    return check_rows(opened(folder, content), "data", DatasetInputs("x", **stage_inputs), lambda _count: None)


def good(text: str = "a") -> dict:
    return {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}]}


def lines(*rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.mark.parametrize(
    ("content", "texts", "labels"),
    [
        (b'{"a":1}\n{"a":2}\n', [b'{"a":1}', b'{"a":2}'], ["row 1 (line 1)", "row 2 (line 2)"]),
        (b'{"a":1}\n{"a":2}', [b'{"a":1}', b'{"a":2}'], ["row 1 (line 1)", "row 2 (line 2)"]),
        (b'{"a":1}\r\n  {"a":2}\t \r\n', [b'{"a":1}', b'{"a":2}'], ["row 1 (line 1)", "row 2 (line 2)"]),
        (b'\n{"a":1}\n\n   \n{"a":2}\n\n', [b'{"a":1}', b'{"a":2}'], ["row 1 (line 2)", "row 2 (line 5)"]),
        (b'\xef\xbb\xbf{"a":1}\n{"a":2}\n', [b'{"a":1}', b'{"a":2}'], ["row 1 (line 1)", "row 2 (line 2)"]),
        (b'\xef\xbb\xbf \n {"a":1}', [b'{"a":1}'], ["row 1 (line 2)"]),
        (b'[{"a":1}, {"a":2}]', [b'{"a":1}', b'{"a":2}'], ["row 1 (line 1)", "row 2 (line 1)"]),
        (b'\xef\xbb\xbf\n[\n{\n  "a": 1\n},\n\n{"a":2}\n]\n', [b'{\n  "a": 1\n}', b'{"a":2}'], ["row 1 (line 3)", "row 2 (line 7)"]),
        ('[{"a":"ä\u2028\\n"}]'.encode(), ['{"a":"ä\u2028\\n"}'.encode()], ["row 1 (line 1)"]),
    ],
)  # fmt: skip
def test_forms_of_a_file(tmp_path, content, texts, labels):
    rows = opened(tmp_path, content)
    assert list(rows.texts()) == texts
    assert [rows.label(position) for position in range(len(rows))] == labels


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (b"", "DatasetEmpty", "data: has no rows"),
        (b" \n\n", "DatasetEmpty", "data: has no rows"),
        (b"\xef\xbb\xbf", "DatasetEmpty", "data: has no rows"),
        (b"[]", "DatasetEmpty", "data: has no rows"),
        (b" [ ]\n", "DatasetEmpty", "data: has no rows"),
        (b"\n <!DOCTYPE html><html>", "DatasetUnreadable", "looks like a web page"),
        (b"PAR1\x15\x04", "DatasetUnreadable", "looks like Parquet"),
        (b"\x1f\x8b\x08", "DatasetUnreadable", "looks like a gzip archive inside a compressed file"),
        ("[1]".encode("utf-16"), "DatasetUnreadable", "UTF-16"),
        (b'[{"a":1},\n{"a":2},\n]', "DatasetUnreadable", "line 3 is not JSON"),
        (b'[{"a":1}\n{"a":2}]', "DatasetUnreadable", "line 2 is not JSON (expected ',' or ']')"),
        (b'[{"a":1},\n{"a":', "DatasetUnreadable", "line 2 is not JSON"),
        (b'[{"a":1}', "DatasetUnreadable", "expected ',' or ']'"),
        (b'[{"a":1}] x', "DatasetUnreadable", "something follows the array"),
        (b'{\n"a":1}\n"1234567', "DatasetUnreadable", "line 3 is not JSON (Unterminated string starting at)"),
        (b"[" * 100_000, "DatasetUnreadable", "line 1 is not JSON"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, content, reason, words):
    with pytest.raises(StageError) as caught:
        opened(tmp_path, content)
    assert caught.value.reason.name == reason
    assert words in caught.value.message


def test_a_value_longer_than_the_blocks_of_the_reader(tmp_path):
    """Values that span blocks of 4 MiB, with a line end that is cut between two blocks."""
    text = r"x\\ \"]}, [" * (1 << 20)
    first = f'[\r\n{{"a": "{text}"}},'.encode()
    content = first + b" " * ((4 << 20) - len(first) % (4 << 20) - 1) + b'\r\n{"b": 1}\r\n]'
    rows = opened(tmp_path, content)
    assert [json.loads(each) for each in rows.texts()] == [{"a": json.loads(f'"{text}"')}, {"b": 1}]
    assert rows.locations().tolist() == [[1, 2], [2, 3]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": "' + b"x" * (5 << 20) + b'"}', "data: a line has more than 4 MiB; write one object per line."),
        (
            b'[1,\n{"a": "' + b"x" * (9 << 20) + b'"}]',
            "data: line 2 is not JSON (a value that begins here does not end within 4 MiB); write an array of objects, or one object per line.",
        ),
    ],
)
def test_the_memory_for_a_row_is_bounded(tmp_path, monkeypatch, content, message):
    for module in ("line_scan", "value_scan"):
        monkeypatch.setattr(f"finetune_stages.sources.{module}.LARGEST_ROW", 4 << 20)
    with pytest.raises(StageError) as caught:
        opened(tmp_path, content)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("content", "texts", "labels"),
    [
        (b'{\n"a":1} {"a":\n2}\n3 "x" [4]', [b'{\n"a":1}', b'{"a":\n2}', b"3", b'"x"', b"[4]"], [[1, 1], [2, 2], [3, 4], [4, 4], [5, 4]]),
        (b'[1 ,null,"]\\"",[[]],{"a":"}"},-1.5e3]', [b"1", b"null", b'"]\\""', b"[[]]", b'{"a":"}"}', b"-1.5e3"], [[n, 1] for n in range(1, 7)]),
        (b'{\n"a":1}\n1234567', [b'{\n"a":1}', b"1234567"], [[1, 1], [2, 3]]),
        (b'{\n"a":1}\n"1234567"', [b'{\n"a":1}', b'"1234567"'], [[1, 1], [2, 3]]),
    ],
)  # fmt: skip
def test_values_of_all_kinds(tmp_path, content, texts, labels):
    rows = opened(tmp_path, content)
    assert list(rows.texts()) == texts
    assert rows.locations().tolist() == labels


def test_lines_that_span_blocks_of_the_reader(tmp_path):
    """Usual and unusual lines of all lengths around the block of 4 MiB."""
    filler = [json.dumps({"n": number, "text": "x" * (number * 791_919 % 3_000_000)}).encode() for number in range(12)]
    ends = [b"\n", b"\r\n", b" \n\n", b"\n \t\n"]
    content = b"".join(text + ends[number % 4] for number, text in enumerate(filler))
    rows = opened(tmp_path, content)
    assert list(rows.texts()) == filler
    lines = content.split(b"\n")
    assert [lines[line - 1].strip() for _, line in rows.locations().tolist()] == filler


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"messages": [', "line 2) is not JSON (Expecting value at character 15) (1 of"),
        (b"hello", "row 2 (line 2) is not JSON (Expecting value at character 1)"),
        (b'{"a": "\xff"}', "not UTF-8: byte 0xff at byte 8"),
        (b"{'a': 1}", "Expecting property name"),
        (b'{"a": 1} "b"', "is not JSON (Extra data at character 10)"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_lines_that_are_no_json_are_named(tmp_path, line, words):
    with pytest.raises(StageError) as caught:
        check(tmp_path, lines(good()) + line + b"\n" + lines(good(), "bad"), bad_rows="Drop", bad_rows_share=1.0)
    assert caught.value.reason.name == "DatasetUnreadable"
    assert words in caught.value.message
    assert caught.value.message.endswith(" (1 of 4 rows is not JSON); correct it, or write the file again.")


def test_every_row_is_checked_not_only_the_first_ones(tmp_path):
    with pytest.raises(StageError) as caught:
        check(tmp_path, lines(*[good()] * 4999, {"messages": [], "x": 1}))
    assert caught.value.reason.name == "BadRow"
    assert caught.value.message == (
        "data: row 5000 (line 5000) has an empty list of messages (1 of 5,000 rows is bad); correct it, or leave bad rows out with"
        " dataset.badRows.policy Drop and dataset.badRows.share 0.1."
    )


def test_bad_rows_are_dropped_up_to_their_share(tmp_path):
    content = lines(good("1"), {"a": 1}, good("2"), "text", good("3"), good("4"), good("5"), good("6"), good("7"), good("8"))
    checked = check(tmp_path, content, bad_rows="Drop", bad_rows_share=0.2)
    assert [json.loads(text)["messages"][1]["content"] for text in checked.rows.texts()] == list("12345678")
    assert checked.dropped == 2
    assert checked.examples == (
        "row 2 (line 2) has no messages (its keys are: a); row 4 (line 4) is a string, not an object with messages"
    )
    assert checked.rows.label(1) == "row 3 (line 3)"
    with pytest.raises(StageError) as caught:
        check(tmp_path, content, bad_rows="Drop", bad_rows_share=0.19)
    assert caught.value.reason.name == "BadRow"
    assert "2 of 10 rows are bad, more than dataset.badRows.share 0.19 allows: row 2 (line 2)" in caught.value.message


def test_dropping_every_row_leaves_nothing(tmp_path):
    with pytest.raises(StageError) as caught:
        check(tmp_path, lines({"a": 1}), bad_rows="Drop", bad_rows_share=1.0)
    assert caught.value.reason.name == "DatasetEmpty"


texts = st.text(min_size=1).filter(str.strip)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
keys = st.text().map("_{}".format)  # no key that has a meaning, such as image or weight
chat_rows = st.builds(
    lambda others, messages, answer, extra: {
        **others, "messages": [*messages, {**extra, "role": "assistant", "content": answer}],
    },
    st.dictionaries(keys, values, max_size=3),
    st.lists(
        st.builds(
            lambda extra, role, content: {**extra, "role": role, "content": content},
            st.dictionaries(keys, values, max_size=2), st.sampled_from(["system", "user", "tool", "function"]), st.text(),
        ),
        max_size=3,
    ),
    texts,
    st.dictionaries(keys, values, max_size=2),
)  # fmt: skip
styles = st.sampled_from(["lines", "ascii lines", "array", "indented array"])


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.text('"\\\\{}[]a', max_size=6) | st.integers() | st.recursive(st.none(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('"\\\\{', max_size=3), inner, max_size=2)), min_size=1, max_size=6),
    st.integers(1, 9), st.booleans(), st.sampled_from([None, 1]),
)  # fmt: skip
def test_values_are_found_whatever_the_blocks_of_the_reader(elements, block, array, indent):
    text = json.dumps(elements, indent=indent) if array else "\n".join(json.dumps(element, indent=indent) for element in elements)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        for constant in ("_BLOCK", "_LARGEST_BLOCK"):
            patch.setattr(f"finetune_stages.sources.value_scan.{constant}", block)
        path = Path(folder) / "data"
        path.write_text(text)
        rows = JsonLines(path, (index_array if array else index_values)(path, "data", lambda _count: None))
        assert [json.loads(each) for each in rows.texts()] == elements


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(["{}", '{"a": 1}', "\r", "\n", "\r\n", " ", "\ufeff"]), max_size=12), st.integers(1, 9))
def test_lines_are_found_whatever_the_blocks_of_the_reader(parts, block):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "data"
        path.write_bytes("".join(parts).encode())
        whole = JsonLines(path, index_lines(path, "data", lambda _count: None))
        patch.setattr("finetune_stages.sources.line_scan._BLOCK", block)
        rows = JsonLines(path, index_lines(path, "data", lambda _count: None))
        assert [*rows.texts()] == [*whole.texts()]
        assert rows.locations().tolist() == whole.locations().tolist()
        assert rows.index.breaks == whole.index.breaks


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(chat_rows, min_size=1, max_size=8), styles)
def test_rows_come_out_as_they_went_in(rows, style):
    """Whatever columns, types, nulls and characters there are: what is written reads back equal."""
    match style:
        case "lines":
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        case "ascii lines":
            text = "".join(json.dumps(row) + "\r\n" for row in rows)
        case "array":
            text = json.dumps(rows)
        case _:
            text = json.dumps(rows, indent=2, ensure_ascii=False)
    with tempfile.TemporaryDirectory() as folder:
        checked = check(Path(folder), text.encode())
        target = Path(folder) / "out.jsonl"
        sealed = write_rows(target, checked.rows, lambda _count: None)
        content = target.read_bytes()
    assert sealed == SealedFile(len(content), hashlib.sha256(content).hexdigest())
    written = content.decode().split("\n")
    assert written.pop() == ""
    assert [json.loads(line) for line in written] == rows


@pytest.mark.parametrize(
    ("text", "published"),
    [
        (b'{"a": 1e999, "b": -1E+400}', b'{"a": null, "b": null}'),
        (b'{"a": [-Infinity, NaN, 1.5e300, 2e-999]}', b'{"a": [null, null, 1.5e300, 2e-999]}'),
        (b'{"a": %se99, "b": %s}' % (b"9" * 300, b"9" * 400), b'{"a": null, "b": %s}' % (b"9" * 400)),
        (b'{"a": %s.0}' % (b"9" * 400), b'{"a": null}'),
        (b'{"NaN": "1e999 NaN \\" 1e999", "b": 1e999}', b'{"NaN": "1e999 NaN \\" 1e999", "b": null}'),
    ],
)
def test_numbers_that_are_not_finite_are_published_as_null(text, published):
    assert plain(text) == published
    assert may_have_non_finite(text)
