"""Conversion between frozen dataclasses (snake_case) and JSON documents (camelCase), with the path of a field in every error.

pydantic is not used, because the package must import with the standard library only (see the package's docstring).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")


_MESSAGE_LIMIT = 500
"""Characters of an error's message: keys and values of a document can be of any length."""


class DocumentError(ValueError):
    """A document does not have the form in the contract; the message has the field's path."""

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= _MESSAGE_LIMIT else f"{message[: _MESSAGE_LIMIT - 3]}...")


@functools.cache
def camel(name: str) -> str:
    """Return a name in camelCase: ``max_seq_len`` -> ``maxSeqLen``."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def encode(value: Any) -> Any:
    """Return a dataclass, or a container of dataclasses, as JSON values; fields that are ``None`` are omitted."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {camel(name): encode(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(cls: type[T], data: Any, path: str = "") -> T:
    """Return the dataclass ``cls`` from JSON values.

    Raises:
        DocumentError: an unknown or missing field, or a value of the wrong type.
    """
    if not isinstance(data, Mapping):
        raise DocumentError(f"{path or cls.__name__}: expected an object, found {_kind(data)}")
    fields, hints = _form(cls)  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise DocumentError(f"{_join(path, unknown[0])}: unknown field")
    values = {}
    for key, field in fields.items():
        if key in data:
            values[field.name] = _convert(hints[field.name], data[key], _join(path, key))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise DocumentError(f"{_join(path, key)}: missing")
    return cls(**values)


@functools.cache
def _form(cls: type[Any]) -> tuple[dict[str, dataclasses.Field[Any]], dict[str, Any]]:
    """Return the fields of a dataclass by their names in JSON, and their types."""
    return {camel(field.name): field for field in dataclasses.fields(cls)}, typing.get_type_hints(cls)


def canonical(value: Any) -> bytes:
    """Return the canonical bytes of a JSON value for digests: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(encode(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """Return SHA-256 of :func:`canonical`, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in args if option is not type(None)]
        if value is None and len(options) < len(args):
            return None
        return _first_match(options, value, path)
    if origin is typing.Literal:
        if value not in args:
            raise DocumentError(f"{path}: {value!r} is none of {', '.join(map(str, args))}")
        return value
    if origin is tuple:
        _expect(value, list, path)
        return tuple(_convert(args[0], item, f"{path}[{index}]") for index, item in enumerate(value))
    if origin in (dict, Mapping):
        _expect(value, dict, path)
        return {key: _convert(args[1], item, _join(path, key)) for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return decode(hint, value, path)
    if hint is float:
        return _finite(value, path)
    if hint is not Any:
        _expect(value, hint, path)
    return value


def _finite(value: Any, path: str) -> float:
    """Return a number as a float that JSON can hold."""
    if not isinstance(value, int) or isinstance(value, bool):
        _expect(value, float, path)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise DocumentError(f"{path}: is not a finite number")
    return number


def _first_match(options: list[Any], value: Any, path: str) -> Any:
    for option in options[:-1]:
        try:
            return _convert(option, value, path)
        except DocumentError:
            continue
    return _convert(options[-1], value, path)


def _expect(value: Any, cls: type, path: str) -> None:
    if not isinstance(value, cls) or (isinstance(value, bool) and cls is not bool):
        raise DocumentError(f"{path}: expected {_NAMES.get(cls, cls.__name__)}, found {_kind(value)}")


_NAMES: dict[type, str] = {
    str: "a string", int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "an object",
}  # fmt: skip


def _kind(value: Any) -> str:
    return "nothing" if value is None else _NAMES.get(type(value), type(value).__name__)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
