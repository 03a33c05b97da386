"""Validation of the values that no API server validates, with a message that names the field, its value and what it accepts.

Those are the values of free maps such as ``evaluation.modelArgs``, the defaults of a namespace or of the operator, and the other fields of
the operator's configuration.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from finetune_contract.redaction import redact
from finetune_operator.api.section import form_of
from finetune_operator.api.spec import FineTuneRunSpec

from .paths import Json
from .quantities import counted

_SHOWN = 80
_SCALAR = "a string, a number, true or false"
_AMOUNT = "a whole number, or a quantity in quotes"
_TAKES = {
    "bool": "true or false", "int": "a whole number", "float": "a number", "finite": "a finite number", "string": "a string",
    "list": "a list", "tuple": "a list", "dict": "an object", "model": "an object",
}  # fmt: skip
"""What a field accepts, by the first word of pydantic's name for the error."""
_OF_TYPE = ("type", "parsing", "parsing_size", "unicode", "number", "from_float")
_BOUND = "Input should be "
_OF_KEY = "[key]"
"""Last part of pydantic's path of an invalid key."""


@dataclass(frozen=True)
class InvalidValue:
    """The dotted path of an invalid value, and what is wrong with it and what to do."""

    path: str
    problem: str


def validated(spec: Mapping[str, Any]) -> Json | InvalidValue:
    """Return the values of a whole ``spec`` as its fields hold them (``"0.5"`` as 0.5), without those that are null; else the first fault."""
    try:
        found = FineTuneRunSpec.model_validate(spec)
    except ValidationError as error:
        return first_fault(FineTuneRunSpec, spec, error)
    values = found.model_dump(by_alias=True, exclude_unset=True, exclude_none=True)
    return next(_misread(spec, values, ""), None) or values


def first_fault(model: type[BaseModel], stated: Mapping[str, Any], error: ValidationError) -> InvalidValue:
    """Return the first fault that the validation of ``stated`` by ``model`` found."""
    problems = error.errors(include_url=False)
    keys, value = _place(stated, problems[0])
    same = [problem for problem in problems if _place(stated, problem)[0] == keys]
    if problems[0]["loc"][-1:] == (_OF_KEY,):
        return InvalidValue(_path(keys[:-1]), f"has the key {_shown(keys[-1])}; {_sentence(same, '').partition('; ')[2]}")
    removable = value is None and problems[0]["type"] != "missing" and keys and not _is_required(model, stated, keys)
    return InvalidValue(_path(keys), f"{_sentence(same, _shown(value))}{', or remove it' if removable else ''}")


def _is_required(model: type[BaseModel], stated: Mapping[str, Any], keys: tuple[Any, ...]) -> bool:
    """Return whether a field is missing if it is removed."""
    without: Any = copy.deepcopy(dict(stated))
    del reduce(getitem, keys[:-1], without)[keys[-1]]
    try:
        model.model_validate(without)
    except ValidationError as error:
        return any(problem["type"] == "missing" and problem["loc"] == keys for problem in error.errors())
    return False


def _misread(stated: Any, read: Any, path: str) -> Iterator[InvalidValue]:
    """Yield the values that a model reads and an API server rejects: Python's field names, and booleans as numbers or the reverse."""
    if isinstance(stated, Mapping) and isinstance(read, Mapping):
        for name, value in stated.items():
            field = f"{path}.{name}".removeprefix(".")
            if name in read:
                yield from _misread(value, read[name], field)
            elif value is not None:
                yield InvalidValue(field, "is not a field of this resource; remove it")
    elif isinstance(stated, list) and isinstance(read, list):
        for index, (value, item) in enumerate(zip(stated, read, strict=True)):
            yield from _misread(value, item, f"{path}[{index}]")
    elif isinstance(read, float) and not math.isfinite(read):
        yield InvalidValue(path, f"is {read:g}; use a finite number")
    elif not isinstance(stated, str) and isinstance(stated, bool) != isinstance(read, bool):
        yield InvalidValue(path, f"is {_shown(stated)}; use {'true or false' if isinstance(read, bool) else 'a number'}")


def invalid_value(spec: Mapping[str, Any]) -> InvalidValue | None:
    """Return the first invalid value of a whole ``spec``, ``None`` where all are valid."""
    found = validated(spec)
    return found if isinstance(found, InvalidValue) else None


def _place(stated: Mapping[str, Any], problem: ErrorDetails) -> tuple[tuple[int | str, ...], Any]:
    """Return the keys of a problem in the document, and the value there: pydantic appends the members of a union to the path."""
    value: Any = stated
    keys: list[int | str] = []
    for part in problem["loc"]:
        known = part in value if isinstance(value, Mapping) else isinstance(value, list) and isinstance(part, int)
        if not known and problem["type"] != "missing":
            break
        keys.append(part)
        value = value[part] if known else None
    return tuple(keys), value


def _path(keys: tuple[int | str, ...]) -> str:
    """Return the path of a field as the user writes it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in keys).removeprefix(".")


def _sentence(problems: list[ErrorDetails], shown: str) -> str:
    """Return what is wrong with a value and what to do. A union has a problem for each of its members."""
    kind, words = problems[0]["type"], problems[0]["msg"]
    if kind == "missing":
        return "is missing; add it"
    if kind == "extra_forbidden":
        return "is not a field of this resource; remove it"
    if kind == "value_error":
        return words.removeprefix("Value error, ")
    return f"is {shown}; {_fix(problems)}"


def _fix(problems: list[ErrorDetails]) -> str:
    kind, words, context = problems[0]["type"], problems[0]["msg"], problems[0].get("ctx") or {}
    if len(problems) > 1:
        return f"use {_SCALAR if any(one['type'].startswith('bool') for one in problems) else _AMOUNT}"
    stem, _, rest = kind.partition("_")
    if stem in _TAKES and rest in _OF_TYPE:
        return f"use {_TAKES[stem]}"
    if kind == "string_pattern_mismatch":
        return f"write {form_of(context['pattern'])}"
    if kind.endswith(("too_short", "too_long")):
        bound, limit = ("at least", "min_length") if kind.endswith("short") else ("at most", "max_length")
        return f"use {bound} {counted(context[limit], 'character' if kind.startswith('string') else 'item')}"
    if kind == "literal_error":
        return f"use {context['expected']}"
    return f"use a value {words.removeprefix(_BOUND)}"


def _shown(value: Any) -> str:
    text = redact(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
