"""YAML as Kubernetes reads it: one loader for files, ConfigMaps and the operator's configuration."""

from __future__ import annotations

import time
from typing import Any

import pytest

from finetune_operator.api.kubernetes_yaml import InvalidYAML, Limits, dump, parse, parse_all

VALUES: list[tuple[str, Any]] = [
    ("5e-1", 0.5), ("5E-1", 0.5), (".5", 0.5), ("-.5e1", -5), ("1e3", 1000), ("1.0", 1), ("1.5", 1.5), ("1e400", "1e400"),
    ("0o17", 15), ("017", 15), ("-017", -15), ("0x1F", 31), ("0b101", 5), ("1_000", 1000), ("1:30", "1:30"), ("089", 89),
    ("yes", True), ("On", True), ("y", True), ("no", False), ("OFF", False), ("n", False), ("true", True), ("~", None), ("null", None),
    ("2026-11-21", "2026-11-21"), ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z"), ("1.0.0", "1.0.0"), ("8Gi", "8Gi"), ("0.5.1", "0.5.1"),
    ("'5e-1'", "5e-1"), ('"yes"', "yes"), ("|\n  5\n", "5\n"), (".inf", ".inf"), ("=", "="),
]  # fmt: skip
"""Scalars, and what ``sigs.k8s.io/yaml`` makes of them."""


@pytest.mark.parametrize(("text", "value"), VALUES)
def test_a_scalar_is_what_kubernetes_reads(text: str, value: Any) -> None:
    found = parse(f"key: {text}")["key"]
    assert (found, type(found)) == (value, type(value))


TAGGED: list[tuple[str, Any]] = [
    ("!!str 5", "5"), ("!!str yes", "yes"), ("!!str", ""), ("!!str '5'", "5"), ("!!str 1:30", "1:30"), ("!!int '5'", 5), ("!!int 0x1F", 31),
    ("!!float 5", 5), ("!!float 5e-1", 0.5), ("!!bool 'yes'", True), ("!!bool off", False), ("!!null ''", None), ("!!null ~", None),
    ("!!map {a: 1}", {"a": 1}), ("!!seq [1]", [1]), ("!<tag:yaml.org,2002:str> 5", "5"), ("{!!str 5: 1}", {"5": 1}),
    ("{!!str <<: 1}", {"<<": 1}), ("{!!merge <<: {a: 1}}", {"a": 1}), ("! yes", True), ("!!str &a 5", "5"),
]  # fmt: skip
"""Tags of the types of JSON, as ``sigs.k8s.io/yaml`` resolves them."""


@pytest.mark.parametrize(("text", "value"), TAGGED)
def test_a_tag_of_a_json_type_has_its_effect(text: str, value: Any) -> None:
    found = parse(f"key: {text}")["key"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("!!binary aGk=", "!!binary"), ("!!timestamp 2026-11-21", "!!timestamp"), ("!!set {a, b}", "!!set"), ("!!omap [a: 1]", "!!omap"),
        ("!!pairs [a: 1]", "!!pairs"), ("!!python/object/apply:os.system [ls]", "!!python/object/apply:os.system"),
        ("!!python/name:os.system ''", "!!python/name:os.system"), ("!vault secret", "!vault"), ("!Ref x", "!Ref"), ("!env {a: 1}", "!env"),
        ("!!str [a]", "!!str"), ("!!str {a: 1}", "!!str"), ("!!map [a]", "!!map"), ("!!seq {a: 1}", "!!seq"), ("!!map a", "!!map"),
        ("!<tag:example.com,2026:x> a", "tag:example.com,2026:x"), ("{!!binary aGk=: 1}", "!!binary"), ("{!x a: 1}", "!x"),
        ("{a: [1, !x 2]}", "!x"),
    ],
)  # fmt: skip
def test_any_other_tag_is_rejected_in_one_sentence(text: str, tag: str) -> None:
    with pytest.raises(InvalidYAML) as error:
        parse(f"first: 1\nkey: {text}")
    assert str(error.value) == f"line 2: the tag {tag} is not supported here; remove the tag"


@pytest.mark.parametrize("text", ["!!int a", "!!int 1.5", "!!int yes", "!!float a", "!!bool 5", "!!null a", "!!int ''"])
def test_a_value_that_its_tag_does_not_allow_is_rejected(text: str) -> None:
    with pytest.raises(InvalidYAML) as error:
        parse(f"first: 1\nkey: {text}")
    tag = text.partition(" ")[0]
    assert str(error.value) == f"line 2: a value does not have the type of its tag {tag}; remove the tag"


def test_a_byte_order_mark_at_the_start_is_ignored() -> None:
    assert parse("\ufeffa: 1") == {"a": 1}
    assert next(parse_all("\ufeff# a comment\na: 1")).lines["a"] == 2


@pytest.mark.parametrize(
    "text", ["5e-1", "1e3", ".5", "0o17", "yes", "y", "1:30", "2026-11-21", "null", "~", "", "8Gi", "a: b", "ü"]
)
def test_a_text_that_is_written_is_read_back_as_a_text(text: str) -> None:
    assert parse(dump({"value": text})) == {"value": text}


def test_texts_are_quoted_only_where_they_must_be() -> None:
    assert dump({"a": "5e-1", "b": "plain", "c": 0.5, "d": True}) == "a: '5e-1'\nb: plain\nc: 0.5\nd: true\n"


def test_aliases_and_merge_keys() -> None:
    text = 'a: &a {x: 1, y: 2}\nb: {y: 3, <<: *a}\nc: {<<: [{x: 5}, *a]}\nd: *a\ne: {"<<": 1}'
    found = parse(text)
    assert found["b"] == {"x": 1, "y": 3}
    assert found["c"] == {"x": 5, "y": 2}
    assert found["d"] == {"x": 1, "y": 2}
    assert found["e"] == {"<<": 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9" * 5000, "9" * 5000), ("9" * 30, 1e30), ("-9223372036854775808", -(2**63)), ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2.0**64), ("0x1" + "0" * 20, "0x1" + "0" * 20), ("0" * 200 + "7", 7),
    ],
)  # fmt: skip
def test_a_number_of_more_than_64_bits_is_read_as_go_does(text: str, value: object) -> None:
    assert parse(text) == value


def test_limits_of_a_text_from_others() -> None:
    limits = Limits(40, 3, aliases=False)
    assert parse("a: [1]", limits) == {"a": [1]}
    for text, message in [
        ("a: " + "b" * 40, "has more than 40 bytes; remove what is not needed"),
        ("a: [1, 2]", "line 1: has more than 3 values; remove what is not needed"),
        ("a: &x 1\nb: *x", "line 2: has an alias (*x), which is not supported here; write its value"),
    ]:
        with pytest.raises(InvalidYAML) as error:
            parse(text, limits)
        assert str(error.value) == message


def test_the_line_of_a_field_with_a_long_name_is_that_of_its_parent() -> None:
    [found] = parse_all("a:\n  " + "k" * 1000 + ":\n    b: 1\n")
    assert found.lines == {"": 1, "a": 1}


def test_merging_many_objects_takes_linear_time() -> None:
    count = 20_000
    text = "<<: [" + ", ".join(f"{{k{number}: 1}}" for number in range(count)) + "]"
    started = time.thread_time()
    assert len(parse(text)) == count
    assert time.thread_time() - started < 10


def test_the_same_object_twice_is_written_twice() -> None:
    same = {"a": [1]}
    assert dump({"b": same, "c": same}) == "b:\n  a:\n  - 1\nc:\n  a:\n  - 1\n"


def test_nothing_and_several_documents() -> None:
    assert parse("# a comment\n") is None
    assert [one.value for one in parse_all("a: 1\n---\nb: 2\n")] == [{"a": 1}, {"b": 2}]
    assert [one.line for one in parse_all("a: 1\n---\nb: 2\n")] == [1, 3]


_LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [", "line 3: not YAML: "),
        ("a: 1\nb: 2\na: 3", "line 3: the key a occurs twice in one object; remove one of them"),
        ("a: 1\n---\nb: 2", "line 3: expected one document, found several"),
        ("? [a]\n: b", "line 1: a key is not a string; write it as text"),
        ("a: {<<: 5}", "line 1: << takes an object or a list of objects"),
        ("b: 1\na: &a [*a]", "line 2: the alias *a is inside its own value; write the value"),
        ("a: &a\n  b: {c: *a}", "line 2: the alias *a is inside its own value; write the value"),
        ("[" * 101 + "]" * 101, "line 1: is nested in more than 100 levels; remove levels"),
        ("[" * 200_000 + "]" * 200_000, "line 1: is nested in more than 100 levels; remove levels"),
        ("- " * 200_000, "line 1: is nested in more than 100 levels; remove levels"),
        ("a: " + "b" * 3 * 2**20, "has more than 3,145,728 bytes; remove what is not needed"),
        ("a: " + "\N{EURO SIGN}" * 2**20, "has more than 3,145,728 bytes; remove what is not needed"),
        ("{" + "k" * 200 + ": 1, " + "k" * 200 + ": 2}", f"the key {'k' * 80}... occurs twice"),
        ("a: !" + "k" * 200 + " 1", f"the tag !{'k' * 79}... is not supported"),
        ("a: \x00", "line 1: not YAML: the character U+0000 is not allowed; remove it"),
        ("a: \ud800", "has half of a surrogate pair, which is no character; remove it"),
        ("- a\n" * 200_001, "line 200000: has more than 100000 values; remove what is not needed"),
        (_LAUGHS, "has more than 100000 values"),
    ],
)
def test_what_is_not_yaml(text: str, message: str) -> None:
    with pytest.raises(InvalidYAML) as error:
        parse(text)
    assert message in str(error.value)
