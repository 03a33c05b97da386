"""JSON of others: bounded, and only values that every JSON parser reads alike."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.strict_json import JsonError, loads

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=20,
)  # fmt: skip


@given(values)
def test_json_is_read_as_json(value: Any) -> None:
    assert loads(json.dumps(value), 10**6, depth=64) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not JSON"), ("{", "is not JSON"), ("[1] 2", "is not JSON"), ("NaN", "contains NaN, which is not JSON"),
        ("[-Infinity]", "contains -Infinity, which is not JSON"), ("[1e400]", "contains a number that is not finite"),
        ("9223372036854775808", "contains a whole number of more than 64 bits"), ("-9223372036854775809", "contains a whole number of more than 64 bits"),
        ("9" * 90, "contains a whole number of more than 64 bits"), ('{"a": 1, "a": 2}', "contains a key twice in one object"),
        (r'"\ud800"', "contains half of a surrogate pair"), (r'{"\udfff": 1}', "contains half of a surrogate pair"), ('"\ud800"', "contains half of a surrogate pair"),
        ("[[[[1]]]]", "has more than 3 levels"), ('{"a": [{"b": {}}]}', "has more than 3 levels"), ("[" * 40 + "]" * 40, "has more than 3 levels"),
        ("[" * 50, "is not JSON"), ('"' + "a" * 100 + '"', "has more than 100 characters"),
    ],
)  # fmt: skip
def test_texts_that_are_rejected(text: str, problem: str) -> None:
    with pytest.raises(JsonError) as error:
        loads(text, 100, depth=3)
    assert str(error.value) == problem


def test_a_nesting_that_the_parser_cannot_walk() -> None:
    for text in ("[" * 100_000, "[" * 100_000 + "]" * 100_000):
        with pytest.raises(JsonError, match="has more than 32 levels"):
            loads(text, 10**6)


@pytest.mark.parametrize("text", ["9223372036854775807", "-9223372036854775808", "[[[1]]]", r'"\ud83d\ude00"', "1e308", "0.1"])
def test_what_is_just_within_the_limits(text: str) -> None:
    assert loads(text, 100, depth=3) == json.loads(text)


def test_bytes_are_read_as_utf_8() -> None:
    assert loads('{"a": "é"}'.encode(), 11) == {"a": "é"}
    with pytest.raises(JsonError, match="has more than 10 bytes"):
        loads('{"a": "é"}'.encode(), 10)
    with pytest.raises(JsonError, match="is not JSON"):
        loads(b'{"a": "\xe9"}', 20)
