"""Base class of all models of the resource, CEL rules, and the scalar types that the sections share."""

from __future__ import annotations

import fractions
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

from .quantity import QUANTITY_FORMS, parse_quantity

RUN_ONLY = "x-run-only"
"""Keyword in the JSON schema of a model, with the rules that defaults need not obey. No CRD contains it."""


@dataclass(frozen=True)
class Rule:
    """A rule of the Common Expression Language that the API server evaluates (``x-kubernetes-validations``).

    Attributes:
        expression: true for a valid object. Core CEL and ``quantity`` only: Python's CEL libraries support no more.
        message: one sentence with the field, what is wrong and what to do.
        field: path of the field that the error is reported for, relative to the model, with a leading dot.
        run_only: whether only runs must obey it, and not the defaults of a namespace or of the operator: their values are for many
            runs, each of which uses some of them or adds what is missing.
    """

    expression: str
    message: str
    field: str | None = None
    run_only: bool = False

    def as_validation(self) -> dict[str, str]:
        """Return the entry of ``x-kubernetes-validations``."""
        entry = {"rule": " ".join(self.expression.split()), "message": " ".join(self.message.split())}
        return {**entry, "fieldPath": self.field} if self.field else entry


@dataclass(frozen=True)
class OneOf:
    """Bound for ``Annotated[str, ...]``: the value is one of ``values``. ``Literal`` takes no values that derive from others."""

    values: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.literal_schema(list(self.values))


class Section(BaseModel):
    """Part of the resource: immutable, camelCase in YAML, unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    RULES: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core))
        if cls.RULES:
            schema["x-kubernetes-validations"] = [rule.as_validation() for rule in cls.RULES]
            schema[RUN_ONLY] = [rule.as_validation() for rule in cls.RULES if rule.run_only]
        return schema


_FORMS: dict[str, str] = {}
"""Description of the strings that match a pattern, for messages."""


def text(limit: int, pattern: str | None = None, form: str | None = None) -> Any:
    """Return bounds for ``Annotated[str, ...]``: not empty, at most ``limit`` characters. ``form`` describes what matches the pattern."""
    if pattern and form:
        _FORMS[pattern] = form
    return Field(min_length=1, max_length=limit, pattern=pattern)


TRIMMED = r"^[^ \x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^ \x00-\x1f\x7f])?$"


def trimmed(limit: int) -> Any:
    """Return bounds for ``Annotated[str, ...]``: not empty, no leading or trailing space, no control character."""
    return text(limit, TRIMMED)


REVISION = r"^[^ \x00-\x1f\x7f]+$"
REGION = r"^[A-Za-z0-9][-A-Za-z0-9]*$"
"""Name of a region of S3."""

OBJECT_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=OBJECT_NAME)]
"""Name of a Kubernetes object (a DNS subdomain)."""

SHORT_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
ShortName = Annotated[str, Field(min_length=1, max_length=63, pattern=SHORT_NAME)]
"""Name of a volume, a container or a run (a DNS label)."""

DATA_KEY = r"^(\.?[-_a-zA-Z0-9][-._a-zA-Z0-9]*)$"
DataKey = Annotated[str, Field(min_length=1, max_length=253, pattern=DATA_KEY)]
"""Key of a Secret or a ConfigMap. As in Kubernetes it is neither ``.`` nor ``..`` and does not begin with two dots."""

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LABEL_KEY = rf"^({_LABEL}(\.{_LABEL})*/)?{_NAME}$"
"""RE2: a qualified name, ``[<prefix>/]<name>``: the prefix is a DNS subdomain, the name has at most 63 characters."""
LABEL_VALUE = rf"^({_NAME})?$"
LabelValue = Annotated[str, Field(max_length=63, pattern=LABEL_VALUE)]

_DIGITS = {"h": 6, "m": 8, "s": 9, "ms": 12}
"""Largest number of digits before the decimal point, by unit: each part is below 200 years, so that dates can be computed with it."""
DURATION = f"^({'|'.join(f'[0-9]{{1,{digits}}}([.][0-9]{{1,9}})?{unit}' for unit, digits in _DIGITS.items())})+$"
Duration = Annotated[str, Field(min_length=2, max_length=32, pattern=DURATION)]
"""Go duration: ``90s``, ``2h30m``."""


_LONGEST = 32
"""Number of characters of the longest quantity."""
_LARGEST = 2**63 - 1
"""Largest whole number of an API server."""


def _rejection(words: str) -> str:
    return f"not a quantity {words}; write a whole number, or in quotes a number with an optional suffix, {QUANTITY_FORMS}"


def _quantity(words: str, bound: str) -> Any:
    """Return a rule for a quantity. Unlike the error for a pattern, its message lists the accepted forms."""
    expression = f"isQuantity(string(self)) && quantity(string(self)).compareTo(quantity('0')) {bound}"
    rules = [Rule(expression, _rejection(words)).as_validation()]
    extra: Any = {"x-kubernetes-int-or-string": True, "maxLength": _LONGEST, "x-kubernetes-validations": rules}
    return Field(json_schema_extra=extra, union_mode="left_to_right")


def _checked(words: str, fits: Callable[[fractions.Fraction], bool]) -> AfterValidator:
    """Return the same check for values that no API server has validated: the defaults of a namespace or of the operator."""

    def check(value: int | str) -> int | str:
        if value > _LARGEST if isinstance(value, int) else len(value) > _LONGEST:
            raise ValueError("is too large; write a number with a suffix, such as 64Gi")
        try:
            good = fits(parse_quantity(str(value)))
        except ValueError:
            good = False
        if not good:
            raise ValueError(_rejection(words))
        return value

    return AfterValidator(check)


_ZERO_OR_MORE, _ABOVE_ZERO = "of 0 or more", "above 0"
Quantity = Annotated[int | str, _quantity(_ZERO_OR_MORE, ">= 0"), _checked(_ZERO_OR_MORE, lambda value: value >= 0)]
"""Kubernetes quantity that is not negative: ``4``, ``500m``, ``32Gi``."""

Size = Annotated[int | str, _quantity(_ABOVE_ZERO, "> 0"), _checked(_ABOVE_ZERO, lambda value: value > 0)]
"""Kubernetes quantity greater than 0."""

METRIC_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*\.[A-Za-z0-9_.-]*[A-Za-z0-9]$"
MetricName = Annotated[str, Field(min_length=1, max_length=128, pattern=METRIC_NAME)]
"""``<task>.<metric>``: ``arc_easy.acc_norm``, ``holdout.bits_per_byte``."""

Fraction = Annotated[float, Field(ge=0, le=1)]

FreeValue = Annotated[
    str | int | float | bool,
    Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}),
]
"""Scalar of any type, for maps whose keys a library defines."""

_FORMS |= {
    REVISION: "a branch, tag or commit without spaces",
    TRIMMED: "it without spaces at its ends and without control characters",
    OBJECT_NAME: "the name of a Kubernetes object: lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
    SHORT_NAME: "a name of lower-case letters, digits and '-', with a letter or digit at both ends",
    DATA_KEY: "a key of letters, digits, '-', '_' and '.'",
    LABEL_KEY: "a label's key, <name> or <prefix>/<name>: a name of at most 63 letters, digits, '-', '_' and '.', and a prefix that is a"
    " DNS name in lower case",
    LABEL_VALUE: "a label's value: at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends",
    DURATION: "a duration such as 90s, 45m or 2h30m",
    METRIC_NAME: "<task>.<metric>, such as arc_easy.acc or holdout.bits_per_byte",
}


def form_of(pattern: str) -> str:
    """Return a description of the strings that match ``pattern``."""
    return _FORMS.get(pattern, f"a string that matches {pattern}")
