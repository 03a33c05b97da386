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
    """Requirements on labels that must all hold; without any, everything is selected."""

    requirements: tuple[_Requirement, ...] = ()

    @classmethod
    def of(cls, labels: Labels | Selector | None) -> Selector:
        """The selector for labels that must be equal."""
        if isinstance(labels, Selector):
            return labels
        return cls(tuple(_Requirement(key, "in", frozenset({value})) for key, value in (labels or {}).items()))

    @classmethod
    def parse(cls, text: str) -> Selector:
        """``app=x,tier!=db,env in (a, b),!canary``.

        Raises:
            ValueError: it is no selector.
        """
        return cls(tuple(_requirement(part.strip()) for part in _COMMA.split(text) if part.strip()))

    def matches(self, labels: Labels | None) -> bool:
        """Whether an object with ``labels`` is selected."""
        return all(requirement.holds(labels or {}) for requirement in self.requirements)


def _requirement(text: str) -> _Requirement:
    if found := _SET.fullmatch(text):
        values = frozenset(value.strip() for value in found[3].split(","))
        return _Requirement(found[1], "in" if found[2] == "in" else "notin", values)
    if found := _EQUALITY.fullmatch(text):
        return _Requirement(found[1], "notin" if found[2] == "!=" else "in", frozenset({found[3]}))
    if found := _PRESENCE.fullmatch(text):
        return _Requirement(found[2], "!" if found[1] else "exists")
    raise ValueError(f"unable to parse requirement: {text!r} is none of key=value, key!=value, key in (...), key and !key")
