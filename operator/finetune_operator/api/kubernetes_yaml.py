"""YAML as ``kubectl`` and the API server read it, with the line of every field.

PyYAML implements YAML 1.1, where ``5e-1`` is a string and ``1:30`` is a number of base 60. Kubernetes does not. Scalars are therefore
resolved by the rules of ``sigs.k8s.io/yaml`` (go-yaml v2), so that a document means the same in a file, in a ConfigMap and in a cluster.

Tags of the JSON types (``!!str``, ``!!int``, ``!!map`` ...) have their effect. Kubernetes ignores most other tags; they are rejected here,
because a value would not be what its author wrote.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import yaml


class InvalidYAML(ValueError):
    """A text is not YAML, or has a key twice or an unsupported tag. ``line`` counts from 1; ``None`` where no line is known."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem if line is None else f"line {line}: {problem}")
        self.problem, self.line = problem, line


class Parsed(NamedTuple):
    """One document: its value, its first line, and the line of every field (``spec.dataset.uri``), from 1."""

    value: Any
    line: int
    lines: dict[str, int]


def parse(text: str) -> Any:
    """Return the value of a text with one document, ``None`` where it is empty.

    Raises:
        InvalidYAML: the text is not YAML, or has several documents.
    """
    documents = list(parse_all(text))
    if len(documents) > 1:
        raise InvalidYAML("expected one document, found several", documents[1].line)
    return documents[0].value if documents else None


def parse_all(text: str) -> Iterator[Parsed]:
    """Yield the documents of a text.

    Raises:
        InvalidYAML: the text is not YAML.
    """
    try:
        for node in yaml.compose_all(text, Loader=_Loader):
            reader = _Reader()
            yield Parsed(reader.value(node, ""), node.start_mark.line + 1, reader.lines)
    except RecursionError:
        raise InvalidYAML("not YAML: it is nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InvalidYAML(f"not YAML: {error.problem or error.context}", mark.line + 1 if mark else None) from None
    except yaml.YAMLError as error:
        raise InvalidYAML(f"not YAML: {error}") from None


def dump(value: Any, **options: Any) -> str:
    """Return a value as YAML that :func:`parse` and Kubernetes read back: texts such as ``5e-1``, which would be numbers, are quoted."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **options))


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer, which quotes only what YAML 1.1 would misread."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if _plain(text) == text else "'")


_Dumper.add_representer(str, _represent_text)

_UNTAGGED = ""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's loader without its resolution of scalars, so that a node has a tag only if the text has one."""

    def resolve(self, _kind: Any, _value: Any, _implicit: Any) -> str:
        return _UNTAGGED


_TAG_PREFIX = "tag:yaml.org,2002:"
_INT = re.compile(r"^[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+|0o?[0-7]+|0b[01]+)$")
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$")
_SHORTEST_EXPONENT = 1e21
_MOST_VALUES = 100_000
"""Values of one document, those of aliases counted each time: a few lines of aliases can expand to billions."""
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}


class _Reader:
    """Turns YAML nodes into values and records the line of each field."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self._values = 0

    def value(self, node: yaml.Node, path: str) -> Any:
        """Return the value of a node at a dotted path."""
        line = self.lines[path] = node.start_mark.line + 1
        self._values += 1
        if self._values > _MOST_VALUES:
            raise InvalidYAML(f"has more than {_MOST_VALUES} values", line)
        if isinstance(node, yaml.MappingNode):
            _check_tag(node, "map")
            return self._object(node, path)
        if isinstance(node, yaml.SequenceNode):
            _check_tag(node, "seq")
            return [self.value(item, f"{path}[{index}]") for index, item in enumerate(node.value)]
        return _scalar(node)

    def _object(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        merged, found = self._merged(node, path), {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise InvalidYAML("a key is not a string; write it as text", line)
            if _is_merge(key_node):
                continue
            _check_tag(key_node, *_OF_TAG)
            key = str(key_node.value)
            if key in found:
                raise InvalidYAML(f"the key {key} occurs twice in one object; remove one of them", line)
            inner = f"{path}.{key}" if path else key
            found[key] = self.value(value_node, inner)
            self.lines[inner] = line
        return {**merged, **found}

    def _merged(self, node: yaml.MappingNode, path: str) -> dict[str, Any]:
        """Return what the merge keys (``<<``) of an object add to it: the first of several objects takes precedence."""
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not _is_merge(key_node):
                continue
            for one in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                values = self.value(one, path)
                if not isinstance(values, dict):
                    raise InvalidYAML("<< takes an object or a list of objects", one.start_mark.line + 1)
                merged = {**values, **merged}
        return merged


def _is_merge(key: yaml.Node) -> bool:
    quoted = getattr(key, "style", None)
    return bool(key.value == "<<" and not quoted and key.tag in (_UNTAGGED, f"{_TAG_PREFIX}merge"))


def _check_tag(node: yaml.Node, *supported: str) -> None:
    """Raise an error if a node has a tag other than those."""
    if node.tag != _UNTAGGED and node.tag not in [f"{_TAG_PREFIX}{name}" for name in supported]:
        raise InvalidYAML(f"the tag {_short(node.tag)} is not supported here; remove the tag", node.start_mark.line + 1)


def _short(tag: str) -> str:
    return f"!!{tag.removeprefix(_TAG_PREFIX)}" if tag.startswith(_TAG_PREFIX) else tag


def _scalar(node: yaml.Node) -> Any:
    text = str(node.value)
    _check_tag(node, *_OF_TAG)
    if node.tag == _UNTAGGED:
        return text if getattr(node, "style", None) else _plain(text)  # quoted, or a block
    value = _plain(text)
    fits = _OF_TAG[node.tag.removeprefix(_TAG_PREFIX)]
    if fits is None:
        return text
    if not fits(value):  # the message must not quote the value, which may be a password
        raise InvalidYAML(
            f"a value does not have the type of its tag {_short(node.tag)}; remove the tag", node.start_mark.line + 1
        )
    return value


_OF_TAG: dict[str, Callable[[Any], bool] | None] = {
    "str": None,
    "int": lambda value: type(value) is int,
    "float": lambda value: type(value) in (int, float),
    "bool": lambda value: type(value) is bool,
    "null": lambda value: value is None,
}
"""The tags that a scalar may have, each with the values that it allows; ``None``: the text itself."""


def _plain(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INT.match(text):
        return _whole_number(text.replace("_", ""))
    if _FLOAT.match(text) and math.isfinite(number := float(text)):  # go-yaml keeps what no float holds as text
        return _number(number)
    return text


def _number(value: float) -> float | int:
    """Return a number as Go's JSON encoder writes it, which is what an API server reads: ``1e3`` and ``1.0`` are whole numbers."""
    return int(value) if value.is_integer() and abs(value) < _SHORTEST_EXPONENT else value


def _whole_number(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    if digits.startswith("0") and digits[1:].isdigit():
        return sign * int(digits, 8)
    return sign * int(digits, 0)
