"""Documents to dataclasses and back, with faults named by their path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from finetune_contract.codec import DocumentError, canonical, decode, digest, encode


@dataclass(frozen=True)
class Inner:
    some_value: float
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    count: int = 1
    on: bool = False
    kind: Literal["a", "b"] = "a"
    maybe: Inner | None = None
    either: int | Literal["auto"] = "auto"
    free: Any = None
    table: dict[str, float] = field(default_factory=dict)


FULL: dict[str, Any] = {
    "name": "n", "inner": {"someValue": 1.5, "words": ["a"]}, "count": 2, "on": True, "kind": "b", "maybe": {"someValue": 2.0, "words": []},
    "either": 3, "free": {"x": [1]}, "table": {"k": 1.0},
}  # fmt: skip


def test_a_document_comes_back_as_it_went() -> None:
    assert encode(decode(Outer, FULL)) == FULL


def test_what_is_left_out_has_its_default_and_none_is_not_written() -> None:
    found = decode(Outer, {"name": "n", "inner": {"someValue": 1}})
    assert found == Outer("n", Inner(1.0))
    assert "maybe" not in encode(found)
    assert decode(Outer, {**FULL, "maybe": None}).maybe is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": 1}, "name: expected a string, found a whole number"),
        ({"name": None}, "name: expected a string, found nothing"),
        ({"inner": []}, "inner: expected an object, found a list"),
        ({"inner": {}}, "inner.someValue: missing"),
        ({"inner": {"someValue": "x"}}, "inner.someValue: expected a number, found a string"),
        ({"inner": {"someValue": True}}, "inner.someValue: expected a number, found true or false"),
        ({"inner": {"someValue": 1, "words": "x"}}, "inner.words: expected a list, found a string"),
        ({"inner": {"someValue": 1, "words": [1]}}, "inner.words[0]: expected a string, found a whole number"),
        ({"count": 1.5}, "count: expected a whole number, found a number"),
        ({"count": True}, "count: expected a whole number, found true or false"),
        ({"on": 1}, "on: expected true or false, found a whole number"),
        ({"kind": "c"}, "kind: 'c' is none of a, b"),
        ({"either": "x"}, "either: 'x' is none of auto"),
        ({"table": {"k": "v"}}, "table.k: expected a number, found a string"),
        ({"table": 1}, "table: expected an object, found a whole number"),
        ({"what": 1}, "what: unknown field"),
        ({"inner": {"someValue": 1, "what": 1}}, "inner.what: unknown field"),
    ],
)
def test_a_fault_is_named_by_its_path(change: dict[str, Any], words: str) -> None:
    with pytest.raises(DocumentError) as caught:
        decode(Outer, {**FULL, **change})
    assert str(caught.value) == words


def test_what_is_no_object_at_all() -> None:
    with pytest.raises(DocumentError, match="Outer: expected an object, found a list"):
        decode(Outer, [])


def test_the_digest_does_not_depend_on_order_or_spaces() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": (1, 2), "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert canonical({"b": "ü", "a": 1}) == '{"a":1,"b":"ü"}'.encode()


def test_no_number_that_is_none_gets_into_a_digest() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"a": float("nan")})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_a_number_is_finite(value: float) -> None:
    with pytest.raises(DocumentError, match=r"^inner.someValue: is not a finite number$"):
        decode(Outer, {**FULL, "inner": {"someValue": value}})


def test_the_message_about_a_long_value_is_short() -> None:
    with pytest.raises(DocumentError) as caught:
        decode(Outer, {**FULL, "k" * 4000: 1})
    assert str(caught.value) == f"{'k' * 497}..."
