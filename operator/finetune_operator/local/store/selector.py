"""Label selectors: the ``labelSelector`` of lists and watches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Labels: TypeAlias = Mapping[str, str]

_KEY = r"(?:[a-z0-9.-]+/)?[A-Za-z0-9][-A-Za-z0-9_.]*"
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s+\(([^()]*)\)")
_EQUALITY = re.compile(rf"({_KEY})\s*(==|=|!=)\s*([-A-Za-z0-9_.]*)")
_PRESENCE = re.compile(rf"(!?)\s*({_KEY})")
_COMMA = re.compile(r",(?![^(]*\))")


@dataclass(frozen=True)
class _Requirement:
    key: str
    operator: Literal["in", "notin", "exists", "!"]
    values: frozenset[str] = frozenset()

    def holds(self, labels: Labels) -> bool:
        if self.operator == "in":
            return labels.get(self.key) in self.values
        if self.operator == "notin":
            return labels.get(self.key) not in self.values
        return (self.key in labels) == (self.operator == "exists")


@dataclass(frozen=True)
class Selector:
    """Requirements on labels, all of which must hold. No requirements select everything."""

    requirements: tuple[_Requirement, ...] = ()

    @classmethod
    def of(cls, labels: Labels | Selector | None) -> Selector:
        """Return the selector for equal labels."""
        if isinstance(labels, Selector):
            return labels
        return cls(tuple(_Requirement(key, "in", frozenset({value})) for key, value in (labels or {}).items()))

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Parse a selector such as ``app=x,tier!=db,env in (a, b),!canary``.

        Raises:
            ValueError: it is not a selector.
        """
        return cls(tuple(_requirement(part.strip()) for part in _COMMA.split(text) if part.strip()))

    def matches(self, labels: Labels | None) -> bool:
        """Return whether an object with ``labels`` is selected."""
        return all(requirement.holds(labels or {}) for requirement in self.requirements)


def _requirement(text: str) -> _Requirement:
    if found := _SET.fullmatch(text):
        values = frozenset(value.strip() for value in found[3].split(","))
        return _Requirement(found[1], "in" if found[2] == "in" else "notin", values)
    if found := _EQUALITY.fullmatch(text):
        return _Requirement(found[1], "notin" if found[2] == "!=" else "in", frozenset({found[3]}))
    if found := _PRESENCE.fullmatch(text):
        return _Requirement(found[2], "!" if found[1] else "exists")
    raise ValueError(f"unable to parse requirement: {text!r}; write key=value, key!=value, key in (...), key or !key")
