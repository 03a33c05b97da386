"""Validation of the values that no API server validates, with a message that names the field, its value and what it accepts.

Those are the values of free maps such as ``evaluation.modelArgs``, and the defaults of a namespace or of the operator.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from finetune_operator.api.section import form_of
from finetune_operator.api.spec import FineTuneRunSpec

from .paths import Json

_SHOWN = 80
_SCALAR = "a string, a number, true or false"
_AMOUNT = "a whole number, or a quantity in quotes"
_TAKES = {
    "bool": "true or false", "int": "a whole number", "float": "a number", "finite": "a finite number", "string": "a string",
    "list": "a list", "dict": "an object", "model": "an object",
}  # fmt: skip
"""What a field accepts, by the first word of pydantic's name for the error."""
_OF_TYPE = ("type", "parsing", "number", "from_float")
_BOUND = "Input should be "


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
        problems = error.errors(include_url=False)
        path, value = _field(spec, problems[0])
        return InvalidValue(path, _sentence([problem for problem in problems if _field(spec, problem)[0] == path], _shown(value)))
    values = found.model_dump(by_alias=True, exclude_unset=True, exclude_none=True)
    return next(_misread(spec, values, ""), None) or values


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


def _field(spec: Mapping[str, Any], problem: ErrorDetails) -> tuple[str, Any]:
    """Return the path of a problem as the user writes it, and the value there: pydantic appends the members of a union to the path."""
    value: Any = spec
    path = ""
    for part in problem["loc"]:
        known = part in value if isinstance(value, Mapping) else isinstance(value, list) and isinstance(part, int)
        if not known and problem["type"] != "missing":
            break
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
        value = value[part] if known else None
    return path.removeprefix("."), value


def _sentence(problems: list[ErrorDetails], shown: str) -> str:
    """Return what is wrong with a value and what to do. A union has a problem for each of its members."""
    kind, words = problems[0]["type"], problems[0]["msg"]
    if kind == "missing":
        return "is missing; add it"
    if kind == "extra_forbidden":
        return "is not a field of this resource; remove it"
    if kind == "value_error":
        return words.removeprefix("Value error, ")
    if len(problems) > 1:
        return f"is {shown}; use {_SCALAR if any(one['type'].startswith('bool') for one in problems) else _AMOUNT}"
    stem, _, rest = kind.partition("_")
    if stem in _TAKES and rest in _OF_TYPE:
        return f"is {shown}; use {_TAKES[stem]}"
    if kind == "string_pattern_mismatch":
        return f"is {shown}; write {form_of(problems[0]['ctx']['pattern'])}"
    if words.startswith(_BOUND):
        return f"is {shown}; use a value {words.removeprefix(_BOUND)}"
    return f"is {shown}; {words[0].lower()}{words[1:]}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
