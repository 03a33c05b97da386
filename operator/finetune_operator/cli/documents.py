"""YAML files of Kubernetes objects, with the line of every field."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_operator.api.kubernetes_yaml import FILE_LIMITS, InvalidYAML, parse, parse_all

STANDARD_INPUT = "standard input"


class DocumentProblem(Exception):
    """A file is not readable as YAML objects: one message with file, line and remedy."""


@dataclass(frozen=True)
class Document:
    """One object of a file, and the line of each field (``spec.dataset.uri`` to a line number, from 1)."""

    source: str
    content: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The object's kind."""
        return str(self.content.get("kind", ""))

    @property
    def name(self) -> str:
        """The object's name, or the prefix of a generated name: ``demo-*``."""
        metadata = self.content.get("metadata")
        if not isinstance(metadata, dict):
            return ""
        prefix = metadata.get("generateName")
        return str(metadata.get("name") or (f"{prefix}*" if prefix else ""))

    @property
    def is_standard_input(self) -> bool:
        """Whether it comes from standard input."""
        return self.source == STANDARD_INPUT

    def line_of(self, path: str) -> int | None:
        """Return the line of a field, or of its nearest parent that the file contains."""
        while path:
            if path in self.lines:
                return self.lines[path]
            cut = max(path.rfind("."), path.rfind("["))
            path = path[: max(cut, 0)]
        return self.lines.get("")


def read_documents(path: Path | None) -> list[Document]:
    """Return all objects of a YAML file (``-`` or ``None``: standard input).

    Raises:
        DocumentProblem: the file is missing, is not YAML, or contains something other than objects.
    """
    source = STANDARD_INPUT if path is None or str(path) == "-" else str(path)
    try:
        text = _text(path)
    except FileNotFoundError:
        raise DocumentProblem(f"{source}: no such file; create one with: finetune init {source}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentProblem(f"{source}: cannot be read: {error}; give a readable YAML file in UTF-8") from None
    found = list(_parse(text, source))
    if not found:
        raise DocumentProblem(f"{source}: contains no object; create a file with: finetune init")
    return found


def _text(path: Path | None) -> str:
    """Return a text, or of one that is too large only so much that :func:`parse_all` rejects it: it may be a device without an end."""
    most = FILE_LIMITS.size + 1
    if path is None or str(path) == "-":
        return sys.stdin.read(most)
    with path.open("rb") as stream:
        content = stream.read(most)
    return content.decode(errors="replace" if len(content) == most else "strict")


def read_value(text: str) -> Any:
    """Return one YAML value, by the same rules.

    Raises:
        DocumentProblem: it is not YAML.
    """
    try:
        return parse(text)
    except InvalidYAML as error:
        raise DocumentProblem(f"the value is {error.problem}; quote it") from None


def _parse(text: str, source: str) -> Iterator[Document]:
    try:
        for found in parse_all(text):
            if found.value is None:
                continue
            if not isinstance(found.value, dict):
                raise DocumentProblem(
                    f"{source}:{found.line}: not an object; write an object with apiVersion, kind, metadata and spec"
                )
            yield Document(source, found.value, found.lines)
    except InvalidYAML as error:
        position = source if error.line is None else f"{source}:{error.line}"
        remedy = "" if "; " in error.problem else "; correct the syntax"
        raise DocumentProblem(f"{position}: {error.problem}{remedy}") from None
