"""The CEL rules of a schema (``x-kubernetes-validations``), evaluated by the CEL team's library.

This module adds the one extension of the API server that the resource uses, ``quantity``. ``hack/crdlint`` compares the results
with the API server's code; it also checks types and costs, which this module does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from finetune_operator.api.quantity import parse_quantity

from .path import Path, child, index, key, text
from .problem import CauseType, Problem
from .schema import Node, RuleSource
from .structure import ABSENT, old_item, unchanged

if TYPE_CHECKING:
    from cel_expr_python.cel import Env, Expression

Reach: TypeAlias = "dict[str, Reach]"
"""Fields that rules read, and their fields; :data:`WHOLE` among them means the whole value."""

WHOLE = ""
_EVERYTHING: Reach = {WHOLE: {}}
_PATHS = re.compile(r"(has\(\s*)?\b(?:self|oldSelf)\b((?:\.\w+)*)")
_STRING_LITERAL = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")


class CelMissing(RuntimeError):
    """The package that evaluates rules is not installed."""


class RuleSet:
    """The compiled rules of one definition. Each is compiled at first use, because most objects need few of them."""

    def __init__(self) -> None:
        self._expressions: dict[str, tuple[Expression, bool]] = {}
        self._reaches: dict[tuple[RuleSource, ...], Reach] = {}

    def evaluate(self, node: Node, value: Any, path: Path, old: Any = ABSENT, ratcheted: bool = False) -> list[Problem]:
        """Return the problems that the rules of ``node`` and its descendants find with ``value``.

        Args:
            node: the node of the schema.
            value: a JSON value that passed the structural checks.
            path: its path.
            old: the value before an update. Rules with ``oldSelf`` are evaluated only if it exists.
            ratcheted: the value is part of an unchanged object, which only rules with ``oldSelf`` may reject.
        """
        if value is None or not node.has_rules:
            return []
        ratcheted = ratcheted or unchanged(node, value, old)
        problems = self._evaluate_node(node, value, path, old, ratcheted) if node.rules else []
        if isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            for name, item in value.items():
                below = node.of_field(name)
                if below is not None and below.has_rules:
                    step = child(path, name) if name in node.properties else key(path, name)
                    problems += self.evaluate(below, item, step, before.get(name, ABSENT), ratcheted)
        elif isinstance(value, list) and node.items is not None:
            for i, item in enumerate(value):
                problems += self.evaluate(node.items, item, index(path, i), old_item(node, item, old), ratcheted)
        return problems

    def _evaluate_node(self, node: Node, value: Any, path: Path, old: Any, ratcheted: bool) -> list[Problem]:
        reach = self._reach(node)
        data = {"self": _without_nul(typed(node, value, reach))}
        if old is not ABSENT:
            data["oldSelf"] = _without_nul(typed(node, old, reach))
        activation = self._environment.Activation(data)
        problems = []
        for rule in node.rules:
            expression, uses_old = self._compiled(rule.expression)
            if uses_old and old is ABSENT:
                continue
            outcome = expression.eval(activation).value()
            if outcome is False and not (ratcheted and not uses_old):
                where = child(path, rule.field_path) if rule.field_path else path
                detail = rule.message or f"failed rule: {rule.expression}"
                problems.append(Problem(text(where), CauseType(rule.reason), detail, node.type))
            elif outcome is not True and outcome is not False:  # the evaluation failed, and the outcome is its message
                detail = f"{outcome} evaluating rule: {rule.message or rule.expression}"
                problems.append(Problem(text(path), CauseType.INVALID, detail, node.type))
        return problems

    def _reach(self, node: Node) -> Reach:
        if node.rules not in self._reaches:
            self._reaches[node.rules] = reach_of(node, (rule.expression for rule in node.rules))
        return self._reaches[node.rules]

    def _compiled(self, expression: str) -> tuple[Expression, bool]:
        if expression not in self._expressions:
            uses_old = "oldSelf" in _STRING_LITERAL.sub("", expression)
            self._expressions[expression] = self._environment.compile(expression), uses_old
        return self._expressions[expression]

    @cached_property
    def _environment(self) -> Env:
        try:
            from cel_expr_python import cel  # noqa: PLC0415 - an extra of 15 MB
        except ModuleNotFoundError as error:
            raise CelMissing(
                "cel-expr-python: this package, which evaluates the CRD's rules, is not installed; pip install 'finetune-operator[local]',"
                " or 'finetune-operator[operator]' for the operator"
            ) from error
        string, number, truth = cel.Type.STRING, cel.Type.INT, cel.Type.BOOL
        # The library does not support custom types, so a quantity is represented by its string.
        functions = [
            cel.FunctionDecl("isQuantity", [cel.Overload("is_quantity_string", truth, [string], impl=_is_quantity)]),
            cel.FunctionDecl("quantity", [cel.Overload("string_to_quantity", string, [string], impl=_quantity)]),
            cel.FunctionDecl(
                "compareTo", [cel.Overload("quantity_compare_to", number, [string, string], is_member=True, impl=_compare)]
            ),
        ]
        return cel.NewEnv(variables={"self": cel.Type.DYN, "oldSelf": cel.Type.DYN}, functions=functions)


def reach_of(node: Node, expressions: Iterable[str]) -> Reach:
    """Return the parts of a value that rules of ``node`` read, from their paths that begin with ``self`` or ``oldSelf``."""
    reach: Reach = {}
    for expression in expressions:
        for asks_presence, steps in _PATHS.findall(_STRING_LITERAL.sub("", expression)):
            place, place_node = reach, node
            for step in steps.split(".")[1:]:
                if step not in place_node.properties:  # a method, or an entry of a map
                    break
                place, place_node = place.setdefault(step, {}), place_node.properties[step]
            if not asks_presence:
                place[WHOLE] = {}
    return reach


def typed(node: Node, value: Any, reach: Reach = _EVERYTHING) -> Any:
    """Return ``value`` as input of rules.

    Integers become doubles if the schema type is number, because rules are typed by the schema. Fields that no rule reads are
    omitted: the status of a run is large, and its rules read two fields of it.
    """
    if isinstance(value, dict):
        if WHOLE not in reach:
            return {name: typed(node.properties[name], value[name], reach[name]) for name in reach if name in value}
        if node.has_numbers:
            return {name: item if (below := node.of_field(name)) is None else typed(below, item) for name, item in value.items()}
        return value
    if isinstance(value, list) and node.items is not None and node.has_numbers:
        return [typed(node.items, item) for item in value]
    return float(value) if type(value) is int and node.type == "number" else value


def _quantity(value: str) -> str:
    parse_quantity(value)
    return value


def _without_nul(value: Any) -> Any:
    """Return ``value`` with another control character instead of NUL, at which the library truncates text."""
    if isinstance(value, str):
        return value.replace("\0", "\x01")
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(item) for name, item in value.items()}
    return [_without_nul(item) for item in value] if isinstance(value, list) else value


def _is_quantity(value: str) -> bool:
    try:
        parse_quantity(value)
    except ValueError:
        return False
    return True


def _compare(one: str, other: str) -> int:
    left, right = parse_quantity(one), parse_quantity(other)
    return (left > right) - (left < right)
