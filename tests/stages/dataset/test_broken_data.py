"""Broken data sets: each fails with its reason and one whole sentence, and nothing is published."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tarfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from finetune_contract.row_formats import RowFields
from finetune_stages.dataset.prepare import prepare
from finetune_stages.sdk import StageError
from preparation import opened

Rejection = tuple[str, str]
"""Reason and sentence."""
OR_DROP = (
    " (1 of 2 rows is bad); correct it, or leave bad rows out with dataset.badRows.policy Drop and dataset.badRows.share 0.5."
)
NO_FORMAT = (
    "no row has the columns of a format (messages; conversations; instruction and output; prompt and completion; input_ids; text)"
)
NAME_COLUMNS = "set dataset.fields to the columns to read, such as {prompt: COLUMN, completion: COLUMN}, {messages: COLUMN} or {text: COLUMN}."
USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
LIST = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
"""Type of messages in a table."""


@dataclass(frozen=True)
class Case:
    """A file that is no dataset.

    Attributes:
        inputs: fields of the stage's document.
    """

    name: str
    file: str
    content: bytes
    expected: Rejection
    inputs: dict[str, Any] = field(default_factory=dict)


def chat(*messages: Any, **columns: Any) -> bytes:
    return json.dumps({"messages": messages, **columns}).encode()


def lines(*rows: bytes) -> bytes:
    return b"\n".join(rows) + b"\n"


def parquet(table: pa.Table) -> bytes:
    stream = BytesIO()
    write_table(table, stream)
    return stream.getvalue()


def tar() -> bytes:
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("rows.jsonl"))
    return stream.getvalue()


def zstandard(content: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(content, asbytes=True)
    return packed


def rejection(reason: str, sentence: str) -> Rejection:
    return reason, sentence


def second_row(fault: str) -> Rejection:
    return "BadRow", f"r.jsonl: row 2 (line 2) {fault}{OR_DROP}"


def only_row(fault: str) -> Rejection:
    return "BadRow", f"r.jsonl: row 1 (line 1) {fault} (1 of 1 rows is bad); correct it."


def second_line(fault: str) -> Rejection:
    return "DatasetUnreadable", f"r.jsonl: row 2 (line 2) {fault} (1 of 2 rows is not JSON); correct it, or write the file again."


GOOD = chat(USER, ANSWER)
TEN = lines(*[chat(USER, {**ANSWER, "content": str(number)}, lang="en") for number in range(10)])
TAR = tar()
PARQUET = parquet(pa.table({"messages": [[USER, ANSWER]] * 3}))
CASES = [
    Case("empty file", "r.jsonl", b"", rejection("DatasetEmpty", "r.jsonl: has no rows; set a file with one chat row per line.")),
    Case("blank lines only", "r.jsonl", b"\n \n\t\n", rejection("DatasetEmpty", "r.jsonl: has no rows; set a file with one chat row per line.")),
    Case("byte order mark only", "r.jsonl", b"\xef\xbb\xbf", rejection("DatasetEmpty", "r.jsonl: has no rows; set a file with one chat row per line.")),
    Case("BOM in the middle", "r.jsonl", lines(GOOD, b"\xef\xbb\xbf" + GOOD, b"\xff" + GOOD), rejection("DatasetUnreadable", "r.jsonl: row 3 (line 3) is not JSON (not UTF-8: byte 0xff at byte 1) (1 of 3 rows is not JSON); correct it, or write the file again.")),
    Case("truncated last row", "r.jsonl", lines(GOOD, GOOD)[:-20], second_line("is not JSON (Expecting ',' delimiter at character 69)")),
    Case("truncated row in the middle", "r.jsonl", lines(GOOD, GOOD[:-5], GOOD), rejection("DatasetUnreadable", "r.jsonl: row 2 (line 2) is not JSON (Unterminated string starting at character 82) (1 of 3 rows is not JSON); correct it, or write the file again.")),
    Case("single quotes", "r.jsonl", lines(GOOD, b"{'messages': []}"), second_line("is not JSON (Expecting property name enclosed in double quotes at character 2)")),
    Case("trailing comma", "r.jsonl", lines(GOOD, GOOD[:-1] + b",}"), second_line("is not JSON (Expecting property name enclosed in double quotes at character 88)")),
    Case("comma after each object", "r.jsonl", lines(GOOD, GOOD + b","), second_line("is not JSON (a comma follows the object)")),
    Case("comment", "r.jsonl", lines(b"// rows", GOOD), rejection("DatasetUnreadable", "r.jsonl: row 1 (line 1) is not JSON (Expecting value at character 1) (1 of 2 rows is not JSON); correct it, or write the file again.")),
    Case("Python literals", "r.jsonl", lines(GOOD, b'{"messages": None}'), second_line("is not JSON (Expecting value at character 14)")),
    Case("two objects on a line", "r.jsonl", lines(GOOD, GOOD + b" " + GOOD), rejection("DatasetUnreadable", "r.jsonl: row 2 (line 2) has a second JSON value at character 89 (1 of 2 rows is not JSON); write one object per line.")),
    Case("object and text on a line", "r.jsonl", lines(GOOD, GOOD + b" end"), second_line("is not JSON (Extra data at character 89)")),
    Case("not UTF-8", "r.jsonl", lines(GOOD, GOOD.replace(b'"q"', b'"\xe9"')), second_line("is not JSON (not UTF-8: byte 0xe9 at byte 44)")),
    Case("control character", "r.jsonl", lines(GOOD, GOOD.replace(b'"q"', b'"\x01"')), second_line("is not JSON (Invalid control character at character 44)")),
    Case("line break in a string", "r.jsonl", lines(GOOD, GOOD.replace(b'"q"', b'"q\nr"')), rejection("DatasetUnreadable", "r.jsonl: row 2 (line 2) is not JSON (Unterminated string starting at character 43); row 3 (line 3) is not JSON (Expecting value at character 1) (2 of 3 rows are not JSON); correct them, or write the file again.")),
    Case("invalid escape", "r.jsonl", lines(GOOD, GOOD.replace(b'"q"', b'"\\x41"')), second_line("is not JSON (Invalid \\escape at character 44)")),
    Case("lone surrogate", "r.jsonl", lines(GOOD, GOOD.replace(b'"q"', b'"\\ud800"')), second_row("has half a character: \\ud800 without the other half of its surrogate pair")),
    Case("NUL bytes", "r.jsonl", lines(GOOD, b"\x00" * 50), second_line("is not JSON (Expecting value at character 1)")),
    Case("deep nesting", "r.jsonl", lines(GOOD, GOOD[:-1] + b', "x": ' + b"[" * 100000 + b"]" * 100000 + b"}"), second_line("is not JSON (it is nested too deeply)")),
    Case("huge integer", "r.jsonl", lines(GOOD, GOOD[:-1] + b', "x": ' + b"9" * 5000 + b"}"), second_line("is not JSON that can be read (an integer has more than 4,300 digits)")),
    Case("NaN in messages", "r.jsonl", lines(GOOD, chat(USER, {**ANSWER, "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]}).replace(b": 1}", b": NaN}")), second_row("has NaN or an infinite number in messages, which JSON does not have")),
    Case("NaN in JSON text of arguments", "r.jsonl", lines(GOOD, chat(USER, {**ANSWER, "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": '{"x": NaN}'}}]})), second_row('has a faulty message 2: the arguments of its call of "f" are text that is not JSON: "{\\"x\\": NaN}"')),
    Case("undesired answer", "r.jsonl", lines(json.dumps({"prompt": "q", "completion": "a", "label": True}).encode(), json.dumps({"prompt": "q", "completion": "b", "label": False}).encode()), second_row("has label false, which marks its completion as an undesired one (KTO)")),
    Case("CSV with Excel's first line", "r.csv", b"sep=,\nprompt,completion\nq,a\n", rejection("DatasetUnreadable", "r.csv: its first line is the one with sep= of Excel; remove that line.")),
    Case("JSON Lines named CSV", "r.csv", lines(GOOD), rejection("DatasetUnreadable", "r.csv: looks like JSON Lines; name it .jsonl.")),
    Case("unclosed array", "r.json", b"[" + GOOD + b"," + GOOD, rejection("DatasetUnreadable", "r.json: line 1 is not JSON (expected ',' or ']'); write an array of objects, or one object per line.")),
    Case("array without comma", "r.json", b"[" + GOOD + b" " + GOOD + b"]", rejection("DatasetUnreadable", "r.json: line 1 is not JSON (expected ',' or ']'); write an array of objects, or one object per line.")),
    Case("array with trailing comma", "r.json", b"[" + GOOD + b",]", rejection("DatasetUnreadable", "r.json: line 1 is not JSON (expected a value); write an array of objects, or one object per line.")),
    Case("text after an array", "r.json", b"[" + GOOD + b"] x", rejection("DatasetUnreadable", "r.json: line 1 is not JSON (something follows the array); write an array of objects, or one object per line.")),
    Case("array of scalars", "r.json", b"[1, 2]", rejection("BadRow", "r.json: row 1 (line 1) is a number, not an object with messages; row 2 (line 1) is a number, not an object with messages (2 of 2 rows are bad); correct them.")),
    Case("empty array", "r.json", b"[]", rejection("DatasetEmpty", "r.json: has no rows; set a file with one chat row per line.")),
    Case("nested array", "r.json", b"[[" + GOOD + b"]]", rejection("BadRow", "r.json: row 1 (line 1) is a list, not an object with messages (1 of 1 rows is bad); correct it.")),
    Case("pretty object unclosed", "r.json", json.dumps({"messages": [USER, ANSWER]}, indent=1).encode()[:-2], rejection("DatasetUnreadable", "r.json: line 11 is not JSON (Expecting ',' delimiter); write an array of objects, or one object per line.")),
    Case("object of columns", "r.json", json.dumps({"messages": [[USER, ANSWER], [USER, ANSWER]]}).encode(), rejection("BadRow", "r.json: row 1 (line 1) has a faulty message 1: it is a list, not an object with role and content (1 of 1 rows is bad); correct it.")),
    Case("object with rows inside", "r.json", json.dumps({"version": 1, "data": [{"messages": [USER, ANSWER]}]}).encode(), rejection("ColumnNotFound", f"r.json: {NO_FORMAT}; the columns of row 1 (line 1) are: version, data; if the objects in data are the rows, write each on a line of its own.")),
    Case("scalar", "r.json", b"42", rejection("BadRow", "r.json: row 1 (line 1) is a number, not an object with messages (1 of 1 rows is bad); correct it.")),
    Case("null row", "r.jsonl", lines(GOOD, b"null"), second_row("is null, not an object with messages")),
    Case("list row", "r.jsonl", lines(GOOD, b"[1]"), second_row("is a list, not an object with messages")),
    Case("string row", "r.jsonl", lines(GOOD, b'"x"'), second_row("is a string, not an object with messages")),
    Case("empty object", "r.jsonl", lines(GOOD, b"{}"), second_row("has no messages (it is empty)")),
    Case("UTF-16", "r.jsonl", GOOD.decode().encode("utf-16"), rejection("DatasetUnreadable", "r.jsonl: is not JSON or JSON Lines and looks like UTF-16 text; save it as UTF-8.")),
    Case("UTF-32", "r.jsonl", GOOD.decode().encode("utf-32"), rejection("DatasetUnreadable", "r.jsonl: is not JSON or JSON Lines and looks like UTF-32 text; save it as UTF-8.")),
    Case("HTML", "r.jsonl", b"<!DOCTYPE html><html>Sign in</html>", rejection("DatasetUnreadable", "r.jsonl: is not JSON or JSON Lines and looks like a web page (HTML or XML); name the address or the path of the data itself.")),
    Case("Git LFS pointer", "r.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 12\n", rejection("DatasetUnreadable", "r.jsonl: is a Git LFS pointer, not the file itself; run git lfs pull in its repository.")),
    Case("pickle", "r.jsonl", b"\x80\x04\x95abc", rejection("DatasetUnreadable", "r.jsonl: is not JSON or JSON Lines and looks like a Python pickle; convert it to JSON Lines, one object a line.")),
    Case("SQLite", "r.jsonl", b"SQLite format 3\x00abc", rejection("DatasetUnreadable", "r.jsonl: is not JSON or JSON Lines and looks like an SQLite database; convert it to JSON Lines, one object a line.")),
    Case("PDF", "r.jsonl", b"%PDF-1.7 abc", rejection("DatasetUnreadable", "r.jsonl: is not JSON or JSON Lines and looks like PDF; convert it to JSON Lines, one object a line.")),
    Case("Excel", "r.xlsx", b"PK\x03\x04abc", rejection("DatasetUnreadable", "r.xlsx: is not JSON or JSON Lines and looks like a zip archive or an Excel workbook; unpack it and name the file inside, or save the workbook as CSV.")),
    Case("NumPy", "r.npy", b"\x93NUMPYabc", rejection("DatasetUnreadable", "r.npy: is not JSON or JSON Lines and looks like a NumPy file; convert it to JSON Lines, one object a line.")),
    Case("ORC", "r.orc", b"ORCabc", rejection("DatasetUnreadable", "r.orc: is not JSON or JSON Lines and looks like ORC; convert it to JSON Lines, one object a line.")),
    Case("Avro", "r.avro", b"Obj\x01abc", rejection("DatasetUnreadable", "r.avro: is not JSON or JSON Lines and looks like Avro; convert it to JSON Lines, one object a line.")),
    Case("YAML", "r.yaml", b"messages:\n- role: user\n", rejection("DatasetUnreadable", "r.yaml: is not JSON or JSON Lines and looks like YAML (its first line is messages:); convert it to JSON Lines, one object a line.")),
    Case("plain text", "r.txt", b"hello world\nagain\n", rejection("DatasetUnreadable", "r.txt: is not JSON or JSON Lines and looks like plain text (its first line is hello world); convert it to JSON Lines, one object a line.")),
    Case("Markdown table", "r.md", b"| a | b |\n| - | - |\n", rejection("DatasetUnreadable", "r.md: is not JSON or JSON Lines and looks like Markdown (its first line is | a | b |); convert it to JSON Lines, one object a line.")),
    Case("tar", "r.tar", TAR, rejection("DatasetUnreadable", "r.tar: is not JSON or JSON Lines and looks like a tar archive; unpack it and name the file inside.")),
    Case("truncated gzip", "r.jsonl.gz", gzip.compress(GOOD * 100)[:-10], rejection("DatasetUnreadable", "r.jsonl.gz: is a damaged gzip file (Compressed file ended before the end-of-stream marker was reached); download or compress it again.")),
    Case("damaged gzip", "r.jsonl.gz", gzip.compress(GOOD * 100)[:30] + b"\xff" * 20, rejection("DatasetUnreadable", "r.jsonl.gz: is a damaged gzip file (Compressed file ended before the end-of-stream marker was reached); download or compress it again.")),
    Case("gzip of nothing", "r.jsonl.gz", gzip.compress(b""), rejection("DatasetEmpty", "r.jsonl.gz: has no rows; set a file with one chat row per line.")),
    Case("truncated bzip2", "r.jsonl.bz2", bz2.compress(GOOD * 100)[:-10], rejection("DatasetUnreadable", "r.jsonl.bz2: is a damaged bzip2 file (Compressed file ended before the end-of-stream marker was reached); download or compress it again.")),
    Case("truncated xz", "r.jsonl.xz", lzma.compress(GOOD * 100)[:-10], rejection("DatasetUnreadable", "r.jsonl.xz: is a damaged xz file (Compressed file ended before the end-of-stream marker was reached); download or compress it again.")),
    Case("truncated Zstandard", "r.jsonl.zst", zstandard(GOOD * 100)[:-3], rejection("DatasetUnreadable", "r.jsonl.zst: is a damaged Zstandard file (Truncated compressed stream); download or compress it again.")),
    Case("gzip twice", "r.jsonl.gz.gz", gzip.compress(gzip.compress(GOOD)), rejection("DatasetUnreadable", "r.jsonl.gz.gz: is not JSON or JSON Lines and looks like a gzip archive inside a compressed file; unpack it and name the file inside.")),
    Case("gzip of a tar", "r.tar.gz", gzip.compress(TAR), rejection("DatasetUnreadable", "r.tar.gz: is not JSON or JSON Lines and looks like a tar archive; unpack it and name the file inside.")),
    Case("name of gzip only", "r.jsonl.gz", b"\x1f\x8b", rejection("DatasetUnreadable", "r.jsonl.gz: is a damaged gzip file (Compressed file ended before the end-of-stream marker was reached); download or compress it again.")),
    Case("no messages", "r.jsonl", lines(GOOD, b'{"id": 1}'), second_row("has no messages (its keys are: id)")),
    Case("messages null", "r.jsonl", lines(GOOD, b'{"messages": null}'), second_row("has messages that are null, not a list")),
    Case("messages an object", "r.jsonl", lines(GOOD, b'{"messages": {}}'), second_row("has messages that are an object, not a list")),
    Case("messages text", "r.jsonl", lines(GOOD, b'{"messages": "hi"}'), second_row("has messages that are a string, not a list")),
    Case("messages empty", "r.jsonl", lines(GOOD, b'{"messages": []}'), second_row("has an empty list of messages")),
    Case("messages of text", "r.jsonl", lines(GOOD, b'{"messages": ["a", "b"]}'), second_row("has a faulty message 1: it is a string, not an object with role and content")),
    Case("message null", "r.jsonl", lines(GOOD, b'{"messages": [null]}'), second_row("has a faulty message 1: it is null, not an object with role and content")),
    Case("no role", "r.jsonl", lines(GOOD, chat({"content": "a"})), second_row("has a faulty message 1: it has no role")),
    Case("unknown role", "r.jsonl", lines(GOOD, chat(USER, {"role": "bot", "content": "a"})), second_row('has a faulty message 2: its role "bot" is none of system, developer, user, assistant, function, tool')),
    Case("role a number", "r.jsonl", lines(GOOD, chat(USER, {"role": 1, "content": "a"})), second_row("has a faulty message 2: its role 1 is none of system, developer, user, assistant, function, tool")),
    Case("role in capitals", "r.jsonl", lines(GOOD, chat(USER, {"role": "Assistant", "content": "a"})), second_row('has a faulty message 2: its role "Assistant" is none of system, developer, user, assistant, function, tool')),
    Case("no content", "r.jsonl", lines(GOOD, chat(USER, {"role": "assistant"})), second_row("has a faulty message 2: it has no content")),
    Case("content null", "r.jsonl", lines(GOOD, chat(USER, {"role": "assistant", "content": None})), second_row("has a faulty message 2: it has no content")),
    Case("content a number", "r.jsonl", lines(GOOD, chat(USER, {"role": "assistant", "content": 5})), second_row("has a faulty message 2: its content is a number, not a string")),
    Case("content an object", "r.jsonl", lines(GOOD, chat(USER, {"role": "assistant", "content": {"text": "a"}})), second_row("has a faulty message 2: its content is an object, not a string")),
    Case("no assistant", "r.jsonl", lines(GOOD, chat(USER)), second_row("has no message of the assistant, so there is nothing to learn from it")),
    Case("answer empty", "r.jsonl", lines(GOOD, chat(USER, {"role": "assistant", "content": " "})), second_row("has a faulty message 2: the assistant's content is empty")),
    Case("image part", "r.jsonl", lines(GOOD, chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ANSWER)), second_row('has a faulty message 1: its content has a part of type "image_url", and only text can be trained on')),
    Case("audio part", "r.jsonl", lines(GOOD, chat({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, ANSWER)), second_row('has a faulty message 1: its content has a part of type "input_audio", and only text can be trained on')),
    Case("unknown part", "r.jsonl", lines(GOOD, chat({"role": "user", "content": [{"type": "chart"}]}, ANSWER)), second_row('has a faulty message 1: its content has a part of type "chart", and only text can be trained on')),
    Case("images column", "r.jsonl", lines(GOOD, chat(USER, ANSWER, images=["x"])), second_row("has images, and only text can be trained on")),
    Case("weight 0.5", "r.jsonl", lines(GOOD, chat(USER, {**ANSWER, "weight": 0.5})), second_row("has a faulty message 2: its weight is 0.5; this release reads 0 (not learned) and 1 (learned)")),
    Case("weights contradict", "r.jsonl", lines(GOOD, chat(USER, {**ANSWER, "weight": 0, "train": True})), second_row("has a faulty message 2: its weight and train contradict each other")),
    Case("arguments not JSON", "r.jsonl", lines(GOOD, chat(USER, {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{"}}]})), second_row('has a faulty message 2: the arguments of its call of "f" are text that is not JSON: "{"')),
    Case("call without name", "r.jsonl", lines(GOOD, chat(USER, {"role": "assistant", "tool_calls": [{"type": "function", "function": {"arguments": "{}"}}]})), second_row("has a faulty message 2: a tool call has no name")),
    Case("tool_calls an object", "r.jsonl", lines(GOOD, chat(USER, {"role": "assistant", "tool_calls": {}})), second_row("has a faulty message 2: its tool_calls are an object, not a list")),
    Case("tools not JSON", "r.jsonl", lines(GOOD, chat(USER, ANSWER, tools="[")), second_row('has tools that are text that is not JSON: "["')),
    Case("tools an object", "r.jsonl", lines(GOOD, chat(USER, ANSWER, tools={"a": 1})), second_row("has tools that are an object, not a list")),
    Case("tool without name", "r.jsonl", lines(GOOD, chat(USER, ANSWER, tools=[{"type": "function", "function": {}}])), second_row("has a tool without a name")),
    Case("unmask text", "r.jsonl", lines(GOOD, chat(USER, ANSWER, unmask="yes")), second_row('has unmask that is "yes", not true or false')),
    Case("chat_template_kwargs list", "r.jsonl", lines(GOOD, chat(USER, ANSWER, chat_template_kwargs=[1])), second_row("has chat_template_kwargs that are a list, not an object")),
    Case("mixed formats", "r.jsonl", lines(GOOD, b'{"instruction": "i", "output": "o"}'), rejection("MixedFormats", "r.jsonl: row 1 (line 1) is in format messages and row 2 (line 2) is in format alpaca; set dataset.format to the one to use, or set a source with rows in one format.")),
    Case("mixed with text", "r.jsonl", lines(b'{"text": "a"}', GOOD), rejection("MixedFormats", "r.jsonl: row 1 (line 1) is in format text and row 2 (line 2) is in format messages; set dataset.format to the one to use, or set a source with rows in one format.")),
    Case("two columns of another format", "r.jsonl", lines(GOOD, b'{"prompt": "p", "completion": "c"}'), rejection("MixedFormats", "r.jsonl: row 1 (line 1) is in format messages and row 2 (line 2) is in format prompt-completion; set dataset.format to the one to use, or set a source with rows in one format.")),
    Case("unknown columns", "r.jsonl", lines(json.dumps({"question": "a", "answer": "b"}).encode()), rejection("ColumnNotFound", f"r.jsonl: {NO_FORMAT}; the columns of row 1 (line 1) are: question, answer; set dataset.fields to {{prompt: question, completion: answer}}.")),
    Case("sharegpt unknown sender", "r.jsonl", lines(json.dumps({"conversations": [{"from": "human", "value": "a"}, {"from": "robot", "value": "b"}]}).encode()), only_row('has a faulty message 2 in conversations: its role "robot" is not known; use user, assistant, system or tool')),
    Case("sharegpt without value", "r.jsonl", lines(json.dumps({"conversations": [{"from": "human"}, {"from": "gpt", "value": "b"}]}).encode()), only_row("has a faulty message 1 in conversations: it has no content")),
    Case("sharegpt empty", "r.jsonl", lines(json.dumps({"conversations": []}).encode()), only_row("has a column conversations with an empty list")),
    Case("sharegpt only human", "r.jsonl", lines(json.dumps({"conversations": [{"from": "human", "value": "b"}]}).encode()), only_row("has no message of the assistant, so there is nothing to learn from it")),
    Case("conversations text", "r.jsonl", lines(json.dumps({"conversations": "hi"}).encode()), only_row('has a column conversations with text that is not a JSON list: "hi"')),
    Case("alpaca output null", "r.jsonl", lines(json.dumps({"instruction": "a", "output": None}).encode()), only_row("has a column output that is null")),
    Case("alpaca output empty", "r.jsonl", lines(json.dumps({"instruction": "a", "output": ""}).encode()), only_row("has an empty output")),
    Case("alpaca instruction a number", "r.jsonl", lines(json.dumps({"instruction": 5, "output": "b"}).encode()), only_row("has a column instruction that is a number, not a string")),
    Case("alpaca history", "r.jsonl", lines(json.dumps({"instruction": "a", "output": "b", "history": [["x"]]}).encode()), only_row('has a column history whose entry 1 is not a pair of a question and its answer: ["x"]')),
    Case("completion empty", "r.jsonl", lines(json.dumps({"prompt": "a", "completion": " "}).encode()), only_row("has an empty completion")),
    Case("completion a number", "r.jsonl", lines(json.dumps({"prompt": "a", "completion": 1}).encode()), only_row("has a column completion that is a number, not a string")),
    Case("text empty", "r.jsonl", lines(json.dumps({"text": " "}).encode()), only_row("has an empty text")),
    Case("text a list", "r.jsonl", lines(json.dumps({"text": ["a"]}).encode()), only_row("has a column text that is a list, not a string")),
    Case("tokens empty", "r.jsonl", lines(json.dumps({"input_ids": []}).encode()), only_row("has a column input_ids that is an empty list, not a list of tokens")),
    Case("tokens text", "r.jsonl", lines(json.dumps({"input_ids": "1 2"}).encode()), only_row("has a column input_ids that is a string, not a list of tokens")),
    Case("tokens negative", "r.jsonl", lines(json.dumps({"input_ids": [1, -1]}).encode()), only_row("has a column input_ids with -1, which is not the number of a token")),
    Case("tokens float", "r.jsonl", lines(json.dumps({"input_ids": [1.0, 2]}).encode()), only_row("has a column input_ids with 1.0, which is not the number of a token")),
    Case("labels short", "r.jsonl", lines(json.dumps({"input_ids": [1, 2], "labels": [1]}).encode()), only_row("has input_ids of length 2 and labels of length 1; each token needs a label")),
    Case("labels other", "r.jsonl", lines(json.dumps({"input_ids": [1, 2], "labels": [-100, 3]}).encode()), only_row("has label 3 for token 2, which is neither -100 nor the token itself (2)")),
    Case("attention mask with a gap", "r.jsonl", lines(json.dumps({"input_ids": [1, 2, 3], "attention_mask": [1, 0, 1]}).encode()), only_row("has an attention_mask with a 0 between two tokens")),
    Case("declared other format", "r.jsonl", lines(json.dumps({"messages": [USER, ANSWER]}).encode()), only_row("is in format messages, not alpaca"), {"format": "alpaca"}),
    Case("CSV with one column name twice", "r.csv", b"text,text\na,b\n", rejection("DatasetUnreadable", "r.csv: its header has column 'text' twice; rename one of the two columns.")),
    Case("CSV of semicolons", "r.csv", b"instruction;output\na;b\n", rejection("DatasetUnreadable", "r.csv: its cells are separated by semicolons (instruction;output); separate them by commas.")),
    Case("CSV with too many cells", "r.csv", b"instruction,output\na,b\nc,d,e\n", rejection("BadRow", "r.csv: row 2 (line 3) has 3 cells, and the header has 2" + OR_DROP)),
    Case("CSV with too few cells", "r.csv", b"instruction,output\na,b\nc\n", rejection("BadRow", "r.csv: row 2 (line 3) has 1 cell, and the header has 2" + OR_DROP)),
    Case("CSV with an open quote", "r.csv", b'instruction,output\na,b\n"c,d\n', rejection("DatasetUnreadable", "r.csv: the quote that is opened in the row at line 3 is not closed; correct it.")),
    Case("CSV in Latin-1", "r.csv", b"instruction,output\na,\xe9\n", rejection("DatasetUnreadable", "r.csv: line 2 is not UTF-8 (byte 0xe9 at byte 3); save it as UTF-8.")),
    Case("CSV header only", "r.csv", b"instruction,output\n", rejection("DatasetEmpty", "r.csv: has no rows; set a file with one chat row per line.")),
    Case("CSV with broken JSON", "r.csv", b'messages\n"[{"\n', rejection("BadRow", "r.csv: row 1 (line 2) has text in column messages that is not JSON (Expecting property name enclosed in double quotes at character 3) (1 of 1 rows is bad); correct it.")),
    Case("CSV of unknown columns", "r.csv", b"q,a\nb,c\n", rejection("ColumnNotFound", f"r.csv: {NO_FORMAT}; the columns of row 1 (line 2) are: q, a; {NAME_COLUMNS}")),
    Case("TSV named CSV", "r.csv", b"instruction\toutput\na\tb\n", rejection("DatasetUnreadable", "r.csv: its cells are separated by tabs ('instruction\\toutput'); name it .tsv, or separate them by commas.")),
    Case("truncated Parquet", "r.parquet", PARQUET[:-20], rejection("DatasetUnreadable", "r.parquet: is a damaged Parquet file (Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file); write or download it again.")),
    Case("damaged Parquet", "r.parquet", PARQUET[:40] + b"\xff" * 60 + PARQUET[100:], rejection("DatasetUnreadable", "r.parquet: is a damaged Parquet file (Couldn't deserialize thrift: don't know what type: \x0f); write or download it again.")),
    Case("Parquet without rows", "r.parquet", parquet(pa.table({"messages": pa.array([], LIST)})), rejection("DatasetEmpty", "r.parquet: has no rows; set a file with one chat row per line.")),
    Case("Parquet without columns of text", "r.parquet", parquet(pa.table({"a": [1], "b": [2.0]})), rejection("ColumnNotFound", f"r.parquet: {NO_FORMAT}; the columns of row 1 are: a, b; {NAME_COLUMNS}")),
    Case("Parquet with bytes", "r.parquet", parquet(pa.table({"text": [b"a", b"\xff"]})), rejection("BadRow", "r.parquet: row 2 has bytes in column text that are not UTF-8 text" + OR_DROP)),
    Case("Parquet with bytes in another column", "r.parquet", parquet(pa.table({"body": [b"\xff"]})), rejection("DatasetUnreadable", "r.parquet: column body has bytes that are not UTF-8 text; write the text as strings.")),
    Case("Parquet null messages", "r.parquet", parquet(pa.table({"messages": pa.array([[USER, ANSWER], None], LIST)})), rejection("BadRow", "r.parquet: row 2 has no messages (it is empty)" + OR_DROP)),
    Case("Parquet with broken JSON text", "r.parquet", parquet(pa.table({"messages": [json.dumps([USER, ANSWER]), "no"]})), rejection("BadRow", 'r.parquet: row 2 has a column messages with text that is not a JSON list: "no"' + OR_DROP)),
    Case("Parquet with tools that are no JSON", "r.parquet", parquet(pa.table({"messages": [[USER, ANSWER]] * 2, "tools": ["[]", "no"]})), rejection("BadRow", 'r.parquet: row 2 has tools that are text that is not JSON: "no"' + OR_DROP)),
    Case("truncated Arrow", "r.arrow", b"ARROW1\x00\x00" + b"\xff" * 20, rejection("DatasetUnreadable", "r.arrow: is a damaged Arrow file (Expected to read 1330795073 metadata bytes, but only read 24); write or download it again.")),
    Case("Feather 1", "r.feather", b"FEA1abc", rejection("DatasetUnreadable", "r.feather: is not JSON or JSON Lines and looks like a Feather file of version 1; write it as Feather of version 2, or as Parquet.")),
    Case("sha256", "r.jsonl", TEN, rejection("DatasetChanged", "dataset.sha256: it is 0000000000000000000000000000000000000000000000000000000000000000, and r.jsonl has SHA-256 aca6561d55304b3bdd524dd88ec7c390ae0a65f5e54ebb121b27ca40b3951306; correct the field or the file."), {"sha256": "0" * 64}),
    Case("split empty train", "r.jsonl", lines(GOOD), rejection("TooFewRows", "dataset.trainSplit: with 0.9 the only row is held out and none is left for training; use more rows, or set it to 1."), {"train_split": 0.9}),
    Case("stratified by a missing column", "r.jsonl", TEN, rejection("ColumnNotFound", "dataset.splitField: no row of r.jsonl has a string, number or boolean in column topic; columns that have one are: lang."), {"train_split": 0.5, "split_by": "stratified", "split_field": "topic"}),
    Case("grouped by a list", "r.jsonl", TEN, rejection("ColumnNotFound", "dataset.splitField: no row of r.jsonl has a string, number or boolean in column messages; columns that have one are: lang."), {"train_split": 0.5, "split_by": "grouped", "split_field": "messages"}),
    Case("grouped by one value", "r.jsonl", TEN, rejection("TooFewRows", "dataset.splitField: all rows have the same value, so that none can be held out; use another column, or set dataset.splitBy to random."), {"train_split": 0.5, "split_by": "grouped", "split_field": "lang"}),
    Case("too many dropped", "r.jsonl", lines(GOOD, GOOD, b"{}", b"{}"), rejection("BadRow", "r.jsonl: 2 of 4 rows are bad, more than dataset.badRows.share 0.25 allows: row 3 (line 3) has no messages (it is empty); row 4 (line 4) has no messages (it is empty); correct them, or raise dataset.badRows.share to 0.5."), {"bad_rows": "Drop", "bad_rows_share": 0.25}),
    Case("all dropped", "r.jsonl", lines(b"{}", b"{}"), rejection("DatasetEmpty", "r.jsonl: no row is left because 2 of 2 rows are bad: row 1 (line 1) has no messages (it is empty); row 2 (line 2) has no messages (it is empty); correct them."), {"bad_rows": "Drop", "bad_rows_share": 1.0}),
    Case("fields of no format", "r.jsonl", TEN, rejection("BadDocument", "dataset.fields: no format reads all of text, labels; keep those of one format."), {"fields": RowFields(text="t", labels="l")}),
    Case("fields that are missing", "r.jsonl", TEN, rejection("ColumnNotFound", "r.jsonl: no row has the columns p and q of format prompt-completion; the columns of row 1 (line 1) are: messages, lang; set dataset.fields.prompt and dataset.fields.completion to columns of the rows."), {"fields": RowFields(prompt="p", completion="q")}),
]  # fmt: skip


def test_there_are_a_hundred_of_them() -> None:
    assert len({case.content for case in CASES if not case.inputs}) >= 100
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_broken_data_set_is_rejected_with_one_sentence(case: Case, tmp_path: Path) -> None:
    source = tmp_path / case.file
    source.write_bytes(case.content)
    context = opened(tmp_path, str(source), **{"train_split": 1.0, **case.inputs})
    with pytest.raises(StageError) as raised:
        prepare(context)
    assert (raised.value.reason.name, raised.value.message.replace(f"{source}", case.file)) == case.expected
    assert not context.path(context.layout.datasets).exists()
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name == "train.jsonl"] == []
