"""A validation error of the API server: field path, type and message, with the same text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

OMITTED: Any = object()
"""The value of a problem without a value."""


class CauseType(StrEnum):
    """Types of errors: the values of ``details.causes[].reason`` of a ``Status``."""

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
    """Strict decoding found it before validation: the status code is 400, not 422."""


_MESSAGES = {
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
    """One error of an object.

    Attributes:
        field: path of the field, ``spec.gate.requirements[0].min``; empty for the whole object.
        kind: type of the error.
        detail: the message without the value.
        value: the invalid value, if it is shown.
    """

    field: str
    kind: CauseType
    detail: str = ""
    value: Any = OMITTED

    @property
    def message(self) -> str:
        """The message of the API server without the field: ``Unsupported value: "x": supported values: "a", "b"``."""
        if self.kind is CauseType.UNKNOWN_FIELD:
            return f'unknown field "{self.field}"'
        parts = [_MESSAGES[self.kind]]
        if self.value is not OMITTED and self.kind not in _WITHOUT_VALUE:
            parts.append(_shown(self.value))
        if self.detail:
            parts.append(self.detail)
        return ": ".join(parts)

    @property
    def blocks_rules(self) -> bool:
        """Whether the API server skips the CEL rules of the object because of this error."""
        return self.kind in _BLOCKING

    def __str__(self) -> str:
        if self.kind is CauseType.UNKNOWN_FIELD:
            return self.message
        return f"{self.field or '<nil>'}: {self.message}"


def _shown(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))  # as Go prints it
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
