"""The parts of the validator, where the corpus does not reach."""

from __future__ import annotations

import re
import subprocess
import sys
from fractions import Fraction
from typing import Any

import pytest
from cel_expr_python import cel

from finetune_operator.api.quantity import parse_quantity
from finetune_operator.validation import CauseType, Problem, SchemaError, Validator
from finetune_operator.validation.pattern import PatternError, compile_pattern
from finetune_operator.validation.rules import RuleSet, reach_of
from finetune_operator.validation.schema import compile_schema
from finetune_operator.validation.structure import StructureCheck, identical, is_date_time, prune


def definition(schema: dict[str, Any]) -> dict[str, Any]:
    properties = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}, "spec": schema}
    version = {"name": "v1", "served": True, "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}}
    return {"spec": {"group": "test.io", "names": {"kind": "Thing"}, "versions": [version]}}


def thing(spec: Any) -> dict[str, Any]:
    return {"apiVersion": "test.io/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec}


def messages_of(schema: dict[str, Any], spec: Any, old: Any = None) -> list[str]:
    validator = Validator(definition(schema))
    problems = validator.create(thing(spec)) if old is None else validator.update(thing(spec), thing(old))
    return [str(problem) for problem in problems]


@pytest.mark.parametrize(
    ("schema", "spec", "sentence"),
    [
        ({"type": "object", "required": ["a"]}, {}, "spec.a: Required value"),
        ({"type": "string", "enum": ["x", "y"]}, "z", 'spec: Unsupported value: "z": supported values: "x", "y"'),
        ({"type": "integer"}, "z", 'spec: Invalid value: "string": spec in body must be of type integer: "string"'),
        ({"type": "integer", "minimum": 3}, 2, "spec: Invalid value: 2: spec in body should be greater than or equal to 3"),
        ({"type": "number", "maximum": 1, "exclusiveMaximum": True}, 1, "spec: Invalid value: 1: spec in body should be less than 1"),
        ({"type": "string", "maxLength": 2}, "abc", "spec: Too long: may not be more than 2 bytes"),
        ({"type": "string", "minLength": 2}, "a", 'spec: Invalid value: "a": spec in body should be at least 2 chars long'),
        ({"type": "string", "pattern": "^a$"}, "b", "spec: Invalid value: \"b\": spec in body should match '^a$'"),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 1}, [1, 2], "spec: Too many: 2: must have at most 1 item"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, [], "spec: Invalid value: 0: spec in body should have at least 1 items"),
        ({"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 1}, {"a": "", "b": ""},
         "spec: Too many: 2: must have at most 1 item"),
        ({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}, ["a", "b", "a", "a"],
         'spec[2]: Duplicate value: "a"'),
        ({"type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": False}, {"a": 1}, 'unknown field "spec.a"'),
        ({"type": "integer", "x-kubernetes-validations": [{"rule": "self > 3"}]}, 2, 'spec: Invalid value: "integer": failed rule: self > 3'),
        ({"type": "integer", "x-kubernetes-validations": [{"rule": "self > 3", "message": "more", "reason": "FieldValueForbidden"}]},
         2, "spec: Forbidden: more"),
    ],
)  # fmt: skip
def test_the_words_of_the_api_server(schema: dict[str, Any], spec: Any, sentence: str) -> None:
    assert messages_of(schema, spec)[0] == sentence


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "oneOf": [{"required": ["a"]}]},
        {"type": "string", "format": "ipv4"},
        {"type": "integer", "multipleOf": 3},
        {"type": "object", "additionalProperties": True},
        {"type": "string", "default": "x"},
        {"type": "string", "x-kubernetes-validations": [{"rule": "true", "messageExpression": "'x'"}]},
        {"type": "string", "x-kubernetes-validations": [{"rule": "true", "optionalOldSelf": True}]},
    ],
)
def test_an_unsupported_schema_is_rejected(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaError, match=r"^spec: the validator (does not support|supports) "):
        Validator(definition(schema))


def test_whole_numbers_are_doubles_if_the_schema_type_is_number() -> None:
    ratio = {"type": "object", "properties": {"ratio": {"type": "number"}}}
    assert messages_of({**ratio, "x-kubernetes-validations": [{"rule": "self.ratio / 2.0 == 0.5"}]}, {"ratio": 1}) == []
    count = {"type": "object", "properties": {"count": {"type": "integer"}}}
    (fault,) = messages_of({**count, "x-kubernetes-validations": [{"rule": "self.count / 2.0 == 0.5"}]}, {"count": 1})
    assert "evaluating rule" in fault


def test_numbers_that_fit_no_integer() -> None:
    unknown: list[Problem] = []
    assert prune(compile_schema({"type": "integer"}), 2**70, None, unknown) == 2.0**70
    three = prune(compile_schema({"type": "integer"}), 3.0, None, unknown)
    assert (three, type(three)) == (3, int)


def test_transition_rules_need_an_old_value() -> None:
    grows = {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "grows"}]}
    schema = {"type": "object", "properties": {"count": grows}}
    assert messages_of(schema, {"count": 1}) == []
    assert messages_of(schema, {"count": 1}, {}) == []
    assert messages_of(schema, {"count": 1}, {"count": 2}) == ['spec.count: Invalid value: "integer": grows']


@pytest.mark.parametrize(("list_type", "found"), [("map", ["spec[0].count"]), ("atomic", [])])
def test_items_have_an_old_value_if_keys_identify_them(list_type: str, found: list[str]) -> None:
    item = {"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string"},
        "count": {"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf"}]},
    }}  # fmt: skip
    keys = {"x-kubernetes-list-map-keys": ["name"]} if list_type == "map" else {}
    validator = Validator(definition({"type": "array", "items": item, "x-kubernetes-list-type": list_type, **keys}))
    old, new = [{"name": "a", "count": 5}, {"name": "b", "count": 5}], [{"name": "b", "count": 4}, {"name": "a", "count": 6}]
    assert [problem.field for problem in validator.update(thing(new), thing(old))] == found


def test_the_word_old_self_in_a_text_is_no_transition() -> None:
    assert messages_of({"type": "string", "x-kubernetes-validations": [{"rule": "self != 'oldSelf'"}]}, "oldSelf") != []


def test_rules_on_entries_of_a_map_name_the_entry() -> None:
    entry = {"type": "string", "x-kubernetes-validations": [{"rule": "self != 'x'", "message": "no x"}]}
    assert messages_of({"type": "object", "additionalProperties": entry}, {"a": "y", "b": "x"}) == [
        'spec[b]: Invalid value: "string": no x'
    ]


def test_what_rules_reach() -> None:
    leaf = {"type": "string"}
    node = compile_schema({"type": "object", "properties": {
        "a": {"type": "object", "properties": {"b": leaf, "c": leaf}},
        "labels": {"type": "object", "additionalProperties": leaf},
        "rest": {"type": "object", "properties": {"x": leaf}},
    }})  # fmt: skip
    everything = {"": {}}
    assert reach_of(node, ["has(self.a) && self.a.b == oldSelf.a.b"]) == {"a": {"b": everything}}
    assert reach_of(node, ["self.labels.all(key, key != 'self.rest')"]) == {"labels": everything}
    assert reach_of(node, ["self == oldSelf"]) == everything
    assert reach_of(node, ["has(self.rest.x)"]) == {"rest": {"x": {}}}


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", 1), ("1.5", Fraction(3, 2)), (".5", Fraction(1, 2)), ("5.", 5), ("100m", Fraction(1, 10)), ("-2k", -2000),
     ("1Ki", 1024), ("1.5Gi", 1536 * 1024**2), ("2e3", 2000), ("2E-1", Fraction(1, 5)), ("1E", 10**18), ("3n", Fraction(3, 10**9))],
)  # fmt: skip
def test_quantities(text: str, value: Fraction) -> None:
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1GB", "--1", "1e", "0x10", "1Gi\n", "٣"])
def test_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


def test_a_rule_that_meets_no_quantity_fails() -> None:
    schema = {"type": "string", "x-kubernetes-validations": [{"rule": "quantity(self).compareTo(quantity('1Gi')) >= 0"}]}
    assert messages_of(schema, "1024Mi") == []
    assert messages_of(schema, "1G") != []
    assert "is not a quantity" in messages_of(schema, "much")[0]


PATTERNS = [
    r"^[0-9a-f]{4}$",
    r"^/[^:]+$",
    r"^(a|b)+$",
    r"a$|^b",
    r"^[a$]$",
    r"^\$$",
    r"^\w+\.\d$",
    r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$",
]
TEXTS = ["", "00ff", "00ff\n", "/x", "/x:", "/x\n", "ab", "aba", "$", "\n", "a$", "ü.1", "x.1", "x.٣", "1h30m", "1.5s", "b\na"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_mean_what_they_mean_to_re2(pattern: str) -> None:
    re2 = cel.NewEnv(variables={"text": cel.Type.STRING, "pattern": cel.Type.STRING}).compile("text.matches(pattern)")
    for text in TEXTS:
        expected = re2.eval(data={"text": text, "pattern": pattern}).value()
        assert bool(compile_pattern(pattern).search(text)) is expected, text


@pytest.mark.parametrize("pattern", [r"[[:alpha:]]", r"\pL", r"\s", r"(?i)a", r"a\z"])
def test_patterns_that_differ_are_rejected(pattern: str) -> None:
    with pytest.raises(PatternError, match=re.escape(pattern)):
        compile_pattern(pattern)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [(1, True, False), (1, 1.0, False), (0, False, False), ([1], [True], False), ({"a": 1}, {"a": 1}, True), ({"a": 1}, {"b": 1}, False),
     ([1, 2], [1], False), ("a", "a", True), (None, None, True), (None, {}, False)],
)  # fmt: skip
def test_identity_of_json(one: Any, other: Any, same: bool) -> None:
    assert identical(one, other) is same


@pytest.mark.parametrize(
    ("text", "good"),
    [("2026-11-21T10:00:00Z", True), ("2026-11-21t10:00:00.5+01:00", True), ("2026-11-21", False), ("2026-02-29T10:00:00Z", False),
     ("2026-11-21T24:00:00Z", False), ("2026-11-21T10:60:00Z", False), ("2026-11-21T10:00:00", False), ("2026-11-21 10:00:00Z", False),
     ("2026-11-21T10:00:00Z\n", False), ("", False)],
)  # fmt: skip
def test_date_times(text: str, good: bool) -> None:
    assert is_date_time(text) is good


def test_problems_name_the_server_s_causes() -> None:
    check = StructureCheck()
    check.check(compile_schema({"type": "string"}), 1, None)
    assert [(problem.kind, problem.blocks_rules) for problem in check.problems] == [(CauseType.TYPE_INVALID, True)]


def test_the_library_of_rules_is_loaded_when_the_first_rule_is() -> None:
    code = (
        "import sys; from finetune_operator.validation import Validator; from finetune_operator.api.crd import crd; Validator(crd());"
        " sys.exit('cel_expr_python' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    node = compile_schema({"type": "string", "x-kubernetes-validations": [{"rule": "self == 'x'"}]})
    with pytest.raises(RuntimeError, match=r"pip install 'finetune-operator\[local\]'"):
        RuleSet().evaluate(node, "x", None)
