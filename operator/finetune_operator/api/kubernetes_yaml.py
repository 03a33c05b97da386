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
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Limits:
    """What a text may have: bytes of UTF-8, values (those of aliases counted each time), and whether it may have aliases (``*name``)."""

    size: int
    values: int
    aliases: bool


FILE_LIMITS = Limits(3 * 2**20, 100_000, aliases=True)
"""Of a file: the API server accepts requests of at most 3 MiB, and a few lines of aliases can expand to billions of values."""
DEPTH_LIMIT = 100
"""Levels of objects and lists."""
_WORD_LIMIT = 80
"""Characters of a word of the text in a message."""
_PATH_LIMIT = 500
"""Characters up to which the path of a field is recorded: long keys with many fields would need the square of their memory."""


def parse(text: str, limits: Limits = FILE_LIMITS) -> Any:
    """Return the value of a text with one document, ``None`` where it is empty.

    Raises:
        InvalidYAML: the text is not YAML, has several documents, or is beyond a limit.
    """
    documents = list(parse_all(text, limits))
    if len(documents) > 1:
        raise InvalidYAML("expected one document, found several", documents[1].line)
    return documents[0].value if documents else None


def parse_all(text: str, limits: Limits = FILE_LIMITS) -> Iterator[Parsed]:
    """Yield the documents of a text.

    Raises:
        InvalidYAML: the text is not YAML, or is beyond a limit.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidYAML("has half of a surrogate pair, which is no character; remove it") from None
    if size > limits.size:
        raise InvalidYAML(f"has more than {limits.size:,} bytes; remove what is not needed")
    try:
        _check_events(text, limits)
        reader = _Reader(limits)
        for node in yaml.compose_all(text, Loader=_Loader):
            reader.lines = {}
            yield Parsed(reader.value(node, ""), node.start_mark.line + 1, reader.lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InvalidYAML(f"not YAML: {error.problem or error.context}", mark.line + 1 if mark else None) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InvalidYAML(f"not YAML: the character U+{error.character:04X} is not allowed; remove it", line) from None


def _check_events(text: str, limits: Limits) -> None:
    """Raise an error for a text that is beyond a limit, before anything recursive reads it: the parser's events are flat."""
    opened: list[str | None] = []
    """Anchors of the objects and lists that are open."""
    values = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else None
        if isinstance(event, yaml.AliasEvent):
            if not limits.aliases:
                raise InvalidYAML(
                    f"has an alias (*{_short(event.anchor or '')}), which is not supported here; write its value", line
                )
            if event.anchor in opened:
                raise InvalidYAML(f"the alias *{_short(event.anchor or '')} is inside its own value; write the value", line)
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append(event.anchor)
            if len(opened) > DEPTH_LIMIT:
                raise InvalidYAML(f"is nested in more than {DEPTH_LIMIT} levels; remove levels", line)
        elif isinstance(event, yaml.CollectionEndEvent):
            opened.pop()
        values += isinstance(event, yaml.NodeEvent)
        if values > 2 * limits.values:  # keys are counted too
            raise _too_many_values(limits, line)


def _too_many_values(limits: Limits, line: int | None) -> InvalidYAML:
    return InvalidYAML(f"has more than {limits.values} values; remove what is not needed", line)


def dump(value: Any, **options: Any) -> str:
    """Return a value as YAML that :func:`parse` and Kubernetes read back: texts such as ``5e-1``, which would be numbers, are quoted."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **options))


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer, which quotes only what YAML 1.1 would misread, and writes the same value twice instead of an alias."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


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
_LONGEST_INT = 80
"""Characters: a sign, 0b and 64 bits, with zeros before them."""
_SHORTEST_EXPONENT = 1e21
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}


class _Reader:
    """Turns YAML nodes into values and records the line of each field."""

    def __init__(self, limits: Limits) -> None:
        self.lines: dict[str, int] = {}
        self._limits = limits
        self._values = 0

    def value(self, node: yaml.Node, path: str) -> Any:
        """Return the value of a node at a dotted path."""
        line = node.start_mark.line + 1
        self._record(path, line)
        self._values += 1
        if self._values > self._limits.values:
            raise _too_many_values(self._limits, line)
        if isinstance(node, yaml.MappingNode):
            _check_tag(node, "map")
            return self._object(node, path)
        if isinstance(node, yaml.SequenceNode):
            _check_tag(node, "seq")
            return [self.value(item, _inner(path, f"[{index}]")) for index, item in enumerate(node.value)]
        return _scalar(node)

    def _record(self, path: str, line: int) -> None:
        if len(path) <= _PATH_LIMIT:
            self.lines[path] = line

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
                raise InvalidYAML(f"the key {_short(key)} occurs twice in one object; remove one of them", line)
            inner = _inner(path, f".{key}" if path else key)
            found[key] = self.value(value_node, inner)
            self._record(inner, line)
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
                for key, value in values.items():
                    merged.setdefault(key, value)
        return merged


def _inner(path: str, part: str) -> str:
    """Return the path of a value inside another one; beyond the limit, a path that is not recorded."""
    return path if len(path) > _PATH_LIMIT else f"{path}{part[: _PATH_LIMIT + 1]}"


def _is_merge(key: yaml.Node) -> bool:
    quoted = getattr(key, "style", None)
    return bool(key.value == "<<" and not quoted and key.tag in (_UNTAGGED, f"{_TAG_PREFIX}merge"))


def _check_tag(node: yaml.Node, *supported: str) -> None:
    """Raise an error if a node has a tag other than those."""
    if node.tag != _UNTAGGED and node.tag not in [f"{_TAG_PREFIX}{name}" for name in supported]:
        raise InvalidYAML(f"the tag {_tag(node.tag)} is not supported here; remove the tag", node.start_mark.line + 1)


def _short(word: str) -> str:
    """Return a word of the text for a message."""
    return word if len(word) <= _WORD_LIMIT else f"{word[:_WORD_LIMIT]}..."


def _tag(tag: str) -> str:
    return _short(f"!!{tag.removeprefix(_TAG_PREFIX)}" if tag.startswith(_TAG_PREFIX) else tag)


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
        raise InvalidYAML(f"a value does not have the type of its tag {_tag(node.tag)}; remove the tag", node.start_mark.line + 1)
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
        whole = _whole_number(text.replace("_", ""))
        if whole is not None:
            return whole
    if _FLOAT.match(text) and math.isfinite(number := float(text)):  # go-yaml keeps what no float holds as text
        return _number(number)
    return text


def _number(value: float) -> float | int:
    """Return a number as Go's JSON encoder writes it, which is what an API server reads: ``1e3`` and ``1.0`` are whole numbers."""
    return int(value) if value.is_integer() and abs(value) < _SHORTEST_EXPONENT else value


def _whole_number(text: str) -> int | None:
    """Return a whole number, ``None`` where 64 bits do not hold it: go-yaml then reads a decimal as a float, and another text as text."""
    if len(text) > _LONGEST_INT:
        return None
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    octal = digits.startswith("0") and digits[1:].isdigit()
    number = sign * int(digits, 8 if octal else 0)
    return number if -(2**63) <= number < 2**64 else None
