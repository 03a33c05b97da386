"""Format detection for files that are not JSON: by their first bytes, and by name only if those are ambiguous."""

from __future__ import annotations

import json
import re
from pathlib import PurePath

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .lfs import is_pointer, pointer_remedy

_UNPACK = "unpack it and name the file inside"
_CONVERT = "convert it to JSON Lines, one object a line"
_SIGNATURES = (
    (b"<", "a web page (HTML or XML)", "name the address or the path of the data itself"),
    (b"PAR1", "Parquet", "name it .parquet"),
    (b"ARROW1", "an Arrow file", "name it .arrow"),
    (b"\xff\xff\xff\xff", "an Arrow stream", "name it .arrow"),
    (b"FEA1", "a Feather file of version 1", "write it as Feather of version 2, or as Parquet"),
    (b"ORC", "ORC", _CONVERT),
    (b"Obj\x01", "Avro", _CONVERT),
    (b"SQLite format 3\x00", "an SQLite database", _CONVERT),
    (b"\x89HDF", "HDF5", _CONVERT),
    (b"\x93NUMPY", "a NumPy file", _CONVERT),
    (b"\x80", "a Python pickle", _CONVERT),
    (b"%PDF", "PDF", _CONVERT),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook", _CONVERT),
    (b"PK\x03\x04", "a zip archive or an Excel workbook", f"{_UNPACK}, or save the workbook as CSV"),
    (b"\x04\x22\x4d\x18", "LZ4", _UNPACK),
    (b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (b"Rar!", "a rar archive", _UNPACK),
    (b"\xff\xfe\x00\x00", "UTF-32 text", "save it as UTF-8"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
)
_COMPRESSED = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\x00", "xz"), (b"\x28\xb5\x2f\xfd", "Zstandard"))
_TAR = slice(257, 262)
_BY_NAME = {
    ".csv": "CSV", ".tsv": "TSV", ".yaml": "YAML", ".yml": "YAML", ".txt": "plain text", ".md": "Markdown", ".py": "Python code",
    ".toml": "TOML", ".parquet": "Parquet", ".arrow": "Arrow", ".xlsx": "Excel",
}  # fmt: skip
_FIELD = rb'(?:"(?:[^"]|"")*"|[^",\t{}\[\]]*)'
_SHOWN = 60


def compression(head: bytes) -> str | None:
    """Return the name of a file's compression by its first bytes; ``None`` if this release does not unpack it."""
    return next((name for signature, name in _COMPRESSED if head.startswith(signature)), None)


def require_json(head: bytes, name: str) -> None:
    """Check that a file can be JSON or JSON Lines. Rows are checked by their reader.

    Args:
        head: the first bytes of the file, without a byte order mark.
        name: name of the file in messages.

    Raises:
        StageError: ``DatasetUnreadable``, with the detected format and the fix.
    """
    if is_pointer(head):
        raise StageError(
            reasons.DATASET_UNREADABLE, f"{name}: is a Git LFS pointer, not the file itself; {pointer_remedy(name)}."
        )
    text = head.lstrip()
    what, remedy = _other_format(head, text, name)
    if what:
        raise StageError(
            reasons.DATASET_UNREADABLE,
            f"{name}: is not JSON or JSON Lines and looks like {what}; {remedy}.",
        )


def _other_format(head: bytes, text: bytes, name: str) -> tuple[str, str]:
    for signature, what, remedy in _SIGNATURES:
        if text.startswith(signature):
            return what, remedy
    packed = compression(head)
    if packed:  # the outer compression is already unpacked
        return f"a {packed} archive inside a compressed file", _UNPACK
    if head[_TAR] == b"ustar":
        return "a tar archive", _UNPACK
    if b"\0" in text[:4]:
        return ("UTF-16 text", "save it as UTF-8") if text[:1] in (b"{", b"[", b"\0") else ("binary data", _CONVERT)
    what = _text_format(text, name)
    named = next((f"name it .{kind.lower()}, or {_CONVERT}" for kind in ("CSV", "TSV") if what.startswith(kind)), _CONVERT)
    return what, named


def _text_format(text: bytes, name: str) -> str:
    """Return the format of text that is not JSON; an empty string for JSON and for unknown formats."""
    first, *more = text.splitlines()[:2] or [b""]
    if first[:1] in (b"", b"{", b"[") or _is_json(first):
        return ""
    what = _BY_NAME.get(PurePath(name).suffix.lower())
    if what is None:
        what = next((kind for separator, kind in ((b"\t", "TSV"), (b",", "CSV")) if _is_table([first, *more], separator)), None)
    shown = first[:_SHOWN].decode(errors="replace")
    return f"{what} (its first line is {shown}{'...' if len(first) > _SHOWN else ''})" if what else ""


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_table(lines: list[bytes], separator: bytes) -> bool:
    """Return whether every line has at least two fields between separators."""
    row = re.compile(_FIELD + rb"(?:" + separator + _FIELD + rb")+")
    return all(row.fullmatch(line) for line in lines)
