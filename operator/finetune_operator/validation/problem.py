"""What the API server says against an object: a field path, a kind of fault and a sentence, in its own words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

OMITTED: Any = object()
"""The value of a problem that does not show one."""


class CauseType(StrEnum):
    """Kinds of faults, by the names that ``details.causes[].reason`` of a ``Status`` carries."""

    REQUIRED = "FieldValueRequired"
    DUPLICATE = "FieldValueDuplicate"
    INVALID = "FieldValueInvalid"
    NOT_SUPPORTED = "FieldValueNotSupported"
    NOT_FOUND = "FieldValueNotFound"
    FORBIDDEN = "FieldValueForbidden"
    TOO_LONG = "FieldValueTooLong"
    TOO_MANY = "FieldValueTooMany"
    TYPE_INVALID = "FieldValueTypeInvalid"
    UNKNOWN_FIELD = "UnknownField"
    """Strict decoding found it, before any validation: the API server answers 400, not 422."""


_WORDS = {
    CauseType.REQUIRED: "Required value",
    CauseType.DUPLICATE: "Duplicate value",
    CauseType.INVALID: "Invalid value",
    CauseType.NOT_SUPPORTED: "Unsupported value",
    CauseType.NOT_FOUND: "Not found",
    CauseType.FORBIDDEN: "Forbidden",
    CauseType.TOO_LONG: "Too long",
    CauseType.TOO_MANY: "Too many",
    CauseType.TYPE_INVALID: "Invalid value",
}
_WITHOUT_VALUE = {CauseType.REQUIRED, CauseType.FORBIDDEN, CauseType.TOO_LONG}
_BLOCKING = {
    CauseType.REQUIRED, CauseType.NOT_SUPPORTED, CauseType.TOO_LONG, CauseType.TOO_MANY, CauseType.TYPE_INVALID,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of an object.

    Attributes:
        field: its path, ``spec.gate.requirements[0].min``; empty where it is the object as a whole.
        kind: what is wrong with it.
        detail: the sentence, without the value.
        value: the offending value, where it helps.
    """

    field: str
    kind: CauseType
    detail: str = ""
    value: Any = OMITTED

    @property
    def message(self) -> str:
        """The API server's words, without the field: ``Unsupported value: "x": supported values: "a", "b"``."""
        if self.kind is CauseType.UNKNOWN_FIELD:
            return f'unknown field "{self.field}"'
        parts = [_WORDS[self.kind]]
        if self.value is not OMITTED and self.kind not in _WITHOUT_VALUE:
            parts.append(_shown(self.value))
        if self.detail:
            parts.append(self.detail)
        return ": ".join(parts)

    @property
    def blocks_rules(self) -> bool:
        """Whether the API server leaves the CEL rules of the object unevaluated because of it."""
        return self.kind in _BLOCKING

    def __str__(self) -> str:
        if self.kind is CauseType.UNKNOWN_FIELD:
            return self.message
        return f"{self.field or '<nil>'}: {self.message}"


def _shown(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))  # as Go prints it
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
