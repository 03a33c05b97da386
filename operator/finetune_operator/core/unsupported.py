"""Fields and values of the CRD that this release does not support: a run that sets one is rejected before it starts.

``docs/unsupported.md`` is generated from this list, which must become empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .paths import lookup

ANY_VALUE = "any value"


@dataclass(frozen=True)
class UnsupportedValue:
    """A field that this release does not support, or some of its values."""

    path: str
    values: str = ANY_VALUE
    uses: Callable[[Any], bool] = lambda _value: True

    def __str__(self) -> str:
        return "this field" if self.values == ANY_VALUE else self.values


def _values(path: str, *values: Any) -> UnsupportedValue:
    return UnsupportedValue(
        path, " or ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in values), values.__contains__
    )


def _above_zero(path: str) -> UnsupportedValue:
    return UnsupportedValue(path, "values above 0", lambda value: isinstance(value, (int, float)) and value > 0)


UNSUPPORTED_VALUES: tuple[UnsupportedValue, ...] = (
    _values("training.enabled", False),
    UnsupportedValue("training.engineArgs"),
    UnsupportedValue("training.placement.priorityClassName"),
    _above_zero("training.checkpoints.everySamples"),
    _above_zero("training.checkpoints.everyMinutes"),
    _values("training.checkpoints.fullState", True),
    _values("training.checkpoints.final", False),
    _values("training.checkpoints.resume", True),
    _values("evaluation.backend", "vllm"),
    UnsupportedValue("gate.baseline", "a registry version or alias", lambda value: value != "base-model"),
    UnsupportedValue("gate.approval"),
    UnsupportedValue("publish"),
    UnsupportedValue("queue"),
    UnsupportedValue("limits"),
    _values("retry.outOfMemory", "ReduceBatch"),
    _values("cleanup.volume", "Delete"),
    _values("cleanup.checkpoints", "Delete"),
    _values("cleanup.pods", "DeleteSucceeded"),
    UnsupportedValue("approval"),
)


def first_unsupported(spec: Mapping[str, Any]) -> UnsupportedValue | None:
    """Return the first field in ``spec`` that this release does not support, ``None`` where there is none."""
    for entry in UNSUPPORTED_VALUES:
        value = lookup(spec, entry.path)
        if value not in (None, {}, []) and entry.uses(value):  # an empty section sets nothing
            return entry
    return None
