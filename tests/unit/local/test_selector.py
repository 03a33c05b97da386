"""Label selectors."""

from __future__ import annotations

import pytest

from finetune_operator.local.store import Selector

LABELS = {"app": "web", "tier": "front", "example.com/team": "ml", "empty": ""}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True), ("app=web", True), ("app==web", True), ("app = web", True), ("app=db", False), ("app!=db", True),
        ("app!=web", False), ("other!=x", True), ("app=web,tier=front", True), ("app=web,tier=back", False), ("app", True),
        ("other", False), ("!other", True), ("! app", False), ("app in (web, db)", True), ("app in (db)", False),
        ("app notin (db)", True), ("other notin (x)", True), ("app notin (web,db)", False), ("example.com/team=ml", True),
        ("empty=", True), ("app=", False), ("tier in (front),app in (a,b,web),!x", True),
    ],
)  # fmt: skip
def test_selection(text: str, selected: bool) -> None:
    assert Selector.parse(text).matches(LABELS) is selected


@pytest.mark.parametrize("text", ["a b", "=x", "app in web", "app in (", "app>3", "a/b/c=d", "app=web tier=front"])
def test_no_selectors(text: str) -> None:
    with pytest.raises(ValueError, match="unable to parse requirement"):
        Selector.parse(text)


def test_equal_labels() -> None:
    assert Selector.of({"app": "web", "tier": "front"}).matches(LABELS)
    assert not Selector.of({"app": "web", "other": ""}).matches(LABELS)
    assert Selector.of(None).matches(None)
