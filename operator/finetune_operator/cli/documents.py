"""Reader of YAML files that agrees with ``kubectl``, with the line of every field.

PyYAML reads YAML 1.1, where ``5e-6`` is a string and ``1:30`` a number of base 60; Kubernetes' reader does not. Scalars are
therefore resolved by the rules of ``sigs.k8s.io/yaml`` (go-yaml v2), so that a file has the same values in both.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

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
        text = sys.stdin.read() if path is None or str(path) == "-" else path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DocumentProblem(f"{source}: no such file; create one with: finetune init {source}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentProblem(f"{source}: cannot be read: {error}; give a readable YAML file in UTF-8") from None
    found = list(_parse(text, source))
    if not found:
        raise DocumentProblem(f"{source}: contains no object; create a file with: finetune init")
    return found


def read_value(text: str) -> Any:
    """Return one YAML value, by the same rules.

    Raises:
        DocumentProblem: it is not YAML.
    """
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        raise DocumentProblem(f"the value is not YAML: {getattr(error, 'problem', None) or error}; quote it") from None
    return None if node is None else _Reader("").value(node, "")


def _parse(text: str, source: str) -> Iterator[Document]:
    try:
        for node in yaml.compose_all(text, Loader=_LOADER):
            reader = _Reader(source)
            content = reader.value(node, "")
            if content is None:
                continue
            if not isinstance(content, dict):
                raise DocumentProblem(
                    f"{source}:{node.start_mark.line + 1}: not an object; write an object with apiVersion, kind, metadata and spec"
                )
            yield Document(source, content, reader.lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = f"{source}:{mark.line + 1}" if mark else source
        raise DocumentProblem(f"{position}: not YAML: {error.problem or error.context}; correct the syntax") from None
    except yaml.YAMLError as error:
        raise DocumentProblem(f"{source}: not YAML: {error}; correct the syntax") from None


_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"^[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+|0o?[0-7]+|0b[01]+)$")
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_SHORTEST_EXPONENT = 1e21
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}


class _Reader:
    """Converts YAML nodes into values and records their lines."""

    def __init__(self, source: str) -> None:
        self.lines: dict[str, int] = {}
        self._source = source

    def value(self, node: yaml.Node, path: str) -> Any:
        """Return the value of a node."""
        self.lines[path] = node.start_mark.line + 1
        if isinstance(node, yaml.MappingNode):
            return self._object(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, f"{path}[{index}]") for index, item in enumerate(node.value)]
        return _scalar(node)

    def _object(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in found:
                line = key_node.start_mark.line + 1
                raise DocumentProblem(f"{self._source}:{line}: duplicate key {key}; remove one of them")
            inner = f"{path}.{key}" if path else key
            found[key] = self.value(value_node, inner)
            self.lines[inner] = key_node.start_mark.line + 1
        return found


def _scalar(node: yaml.Node) -> Any:
    text = str(node.value)
    if getattr(node, "style", None):  # quoted, or a block
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        return _whole_number(text.replace("_", ""))
    if _FLOAT.match(text):
        return _number(float(text))
    return text


def _number(value: float) -> float | int:
    """Return a number as Go's JSON encoder writes it for the API server: ``1e3`` and ``1.0`` are integers."""
    return int(value) if value.is_integer() and abs(value) < _SHORTEST_EXPONENT else value


def _whole_number(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    if digits.startswith("0") and digits[1:].isdigit():
        return sign * int(digits, 8)
    return sign * int(digits, 0)
