"""Validation of defaults as if a run set them: those of a namespace and those of the operator's configuration.

No API server validates defaults. ``core.resolve`` checks types, bounds and support. This module evaluates the same CEL rules that the API
server evaluates for runs, without those that only a run must obey (:attr:`finetune_operator.api.section.Rule.run_only`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from threading import Lock
from typing import Any

from finetune_operator.api import reasons
from finetune_operator.api.crd import defaults_schema
from finetune_operator.api.kubernetes_yaml import InvalidYAML, Limits, parse
from finetune_operator.api.presets import overlay
from finetune_operator.core.origins import PREFIXES
from finetune_operator.core.resolve import SMALLEST, SpecRejection, validated_defaults
from finetune_operator.core.settings import Mode

from .problem import Problem
from .rules import RuleSet
from .schema import compile_schema

DEFAULTS = "finetune-defaults"
"""The ConfigMap of a namespace with default values of ``spec``, as YAML in its key ``spec.yaml``."""
DEFAULTS_KEY = "spec.yaml"
_LIMITS = Limits(32 * 2**10, 2000, aliases=False)
"""Whoever may write ConfigMaps in a namespace writes them. All defaults that a spec can have need a few kilobytes."""

_KEY_LIMIT = 64
"""Characters of another key in a message."""


@dataclass(frozen=True)
class NamespaceDefaults:
    """The defaults of a namespace, and why no run can start with them."""

    values: Mapping[str, Any] = field(default_factory=dict)
    rejection: SpecRejection | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong, for :class:`~finetune_operator.core.settings.Settings`. ``resolve`` finds what has another reason by itself."""
        return self.rejection.message if self.rejection and self.rejection.reason is reasons.INVALID_SPEC else None


def defaults_of(configmap: Mapping[str, Any], mode: Mode) -> NamespaceDefaults:
    """Return the defaults in the ConfigMap :data:`DEFAULTS`. Results are cached by content.

    Raises:
        CelMissing: the package that evaluates rules is not installed.
    """
    data = configmap.get("data") or {}
    if isinstance(data, Mapping) and DEFAULTS_KEY not in data and (other := _other_key(data, configmap.get("binaryData"))):
        return _malformed(other)
    text = data.get(DEFAULTS_KEY) or "" if isinstance(data, Mapping) else data
    return _read(text, mode) if isinstance(text, str) else _malformed("not a string; write the YAML after |")


def _other_key(data: Mapping[str, Any], binary: Any) -> str | None:
    """Return what is wrong with a ConfigMap without the key: defaults elsewhere would be no limits at all. ``None`` if it is empty."""
    if isinstance(binary, Mapping) and DEFAULTS_KEY in binary:
        return "is in binaryData; write it in data, as text in UTF-8 (kubectl writes a file with an invalid byte to binaryData)"
    others = [*data, *(binary if isinstance(binary, Mapping) else ())]
    if not others:
        return None
    return f"missing, but the ConfigMap has the key {str(others[0])[:_KEY_LIMIT]}; rename it or delete the ConfigMap"


@lru_cache(maxsize=256)
def _read(text: str, mode: Mode) -> NamespaceDefaults:
    try:
        values = parse(text or "{}", _LIMITS)
    except InvalidYAML as error:
        return _malformed(str(error))
    if values is None:  # comments only
        return NamespaceDefaults()
    if not isinstance(values, dict):
        return _malformed("not a mapping; write the fields of a FineTuneRun's spec")
    return NamespaceDefaults(values, reject_defaults("namespace", values, mode))


def _malformed(problem: str) -> NamespaceDefaults:
    message = f"ConfigMap {DEFAULTS}, key {DEFAULTS_KEY}: {problem}."
    return NamespaceDefaults(rejection=SpecRejection(reasons.INVALID_SPEC, message))


def reject_defaults(origin: str, values: Mapping[str, Any], mode: Mode) -> SpecRejection | None:
    """Return why no run can start with these defaults, ``None`` if they are valid.

    Args:
        origin: ``namespace`` or ``operator``.
        values: the defaults in the schema of ``spec``.
        mode: where runs run.

    Raises:
        CelMissing: the package that evaluates rules is not installed.
    """
    found = validated_defaults(origin, values, mode)
    if isinstance(found, SpecRejection):
        return found
    sentence = _rules().fault(overlay(SMALLEST, found))
    return SpecRejection(reasons.INVALID_SPEC, f"{PREFIXES[origin]}{sentence}.") if sentence else None


class _Rules:
    """The rules for defaults, for use by several threads. The models have checked the structure, from which the schema is generated."""

    def __init__(self) -> None:
        self._root = compile_schema(defaults_schema())
        self._rules = RuleSet()
        self._lock = Lock()

    def fault(self, spec: Mapping[str, Any]) -> str | None:
        """Return the field of the first problem and what is wrong with it; ``None`` if there is no problem."""
        with self._lock:
            problems = self._rules.evaluate(self._root, spec, None)
        return next((_sentence(problem) for problem in problems), None)


def _sentence(problem: Problem) -> str:
    """Return the field and the message of a rule, without a second name of the field."""
    words = problem.detail.removeprefix(problem.field)
    return f"{problem.field}: {words.lstrip(': ') if words[:1] in (' ', ':') else problem.detail}"


@cache
def _rules() -> _Rules:
    return _Rules()
