"""The base of all models of the resource, CEL rules, and the scalar types that the sections share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema


@dataclass(frozen=True)
class Rule:
    """A rule of the Common Expression Language that the API server evaluates (``x-kubernetes-validations``).

    Attributes:
        expression: true where the object is good. Core CEL and ``quantity`` only: Python's CEL libraries have no more.
        message: one sentence that names the field and the mend.
        field: the field to point at, relative to the model, with a leading dot.
    """

    expression: str
    message: str
    field: str | None = None

    def as_validation(self) -> dict[str, str]:
        """The entry of ``x-kubernetes-validations``."""
        entry = {"rule": " ".join(self.expression.split()), "message": " ".join(self.message.split())}
        return {**entry, "fieldPath": self.field} if self.field else entry


class Section(BaseModel):
    """A part of the resource: camelCase in YAML, unknown fields refused, never changed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)

    RULES: ClassVar[tuple[Rule, ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core_schema))
        if cls.RULES:
            schema["x-kubernetes-validations"] = [rule.as_validation() for rule in cls.RULES]
        return schema


def text(limit: int, pattern: str | None = None) -> Any:
    """Bounds for ``Annotated[str, ...]``: not empty, at most ``limit`` characters."""
    return Field(min_length=1, max_length=limit, pattern=pattern)


OBJECT_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=OBJECT_NAME)]
"""The name of a Kubernetes object (a DNS subdomain)."""

ShortName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""The name of a volume, a container or a run (a DNS label)."""

DataKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
"""A key of a Secret or a ConfigMap."""

LabelKey = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]

Duration = Annotated[
    str,
    Field(min_length=2, max_length=32, pattern=r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"),
]
"""A Go duration: ``90s``, ``2h30m``."""

QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
Quantity = Annotated[
    int | str,
    Field(
        json_schema_extra={"x-kubernetes-int-or-string": True, "pattern": QUANTITY, "maxLength": 32}, union_mode="left_to_right"
    ),
]
"""A Kubernetes quantity: ``4``, ``500m``, ``32Gi``."""

MetricName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
"""``<task>.<metric>``: ``arc_easy.acc_norm``, ``holdout.bits_per_byte``."""

Fraction = Annotated[float, Field(ge=0, le=1)]

FreeValue = Annotated[
    str | int | float | bool,
    Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}),
]
"""A scalar of any kind, for maps whose keys a library defines."""
