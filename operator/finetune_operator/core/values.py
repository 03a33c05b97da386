"""Values of the wrong kind, in words: which field, what it has, what it takes.

The API server validates a run. What it cannot see, the values of free maps such as ``evaluation.modelArgs`` and the defaults of a
namespace or of the operator, is validated here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from finetune_operator.api.section import form_of
from finetune_operator.api.spec import FineTuneRunSpec

_SHOWN = 80
_SCALAR = "a string, a number, true or false"
_AMOUNT = "a whole number, or a quantity in quotes"
_TAKES = {
    "bool": "true or false", "int": "a whole number", "float": "a number", "finite": "a finite number", "string": "a string",
    "list": "a list", "dict": "an object", "model": "an object",
}  # fmt: skip
"""What a field takes, by the first word of pydantic's name for the error."""
_OF_TYPE = ("type", "parsing", "number", "from_float")
_BOUND = "Input should be "


def invalid_value(spec: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the dotted path of the first invalid value of a ``spec``, and a sentence about it; ``None`` where all are valid."""
    try:
        FineTuneRunSpec.model_validate(spec)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        path, value = _field(spec, problems[0])
        return path, _sentence([problem for problem in problems if _field(spec, problem)[0] == path], _shown(value))
    return None


def _field(spec: Mapping[str, Any], problem: ErrorDetails) -> tuple[str, Any]:
    """The path of a problem as the user writes it, and the value there: pydantic appends the members of a union to it."""
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
    """What is wrong with a value and what to do; for a union there is a problem for each of its members."""
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
