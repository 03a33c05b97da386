"""The closed list of reasons: each is used by the code that it belongs to."""

from __future__ import annotations

import ast
from pathlib import Path

from finetune_contract import reasons as stage_reasons
from finetune_contract.reasons import STAGE_REASONS, Reason
from finetune_operator.api import reasons
from finetune_operator.api.reasons import OPERATOR_REASONS, STATE_REASONS

ROOT = Path(__file__).parents[2]
TEXTS = ("reasons.py", "remedies.py")
"""Modules that list and describe reasons."""


def used(*folders: str) -> set[str]:
    """Return the upper-case names that the modules of folders read."""
    found = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            if path.name in TEXTS:
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
                if name.isupper():
                    found.add(name)
    return found


def test_every_reason_is_raised_somewhere() -> None:
    of_stages = {name for name, value in vars(stage_reasons).items() if isinstance(value, Reason)}
    of_control = {
        name for name, value in vars(reasons).items()
        if name.isupper() and (isinstance(value, Reason) or (isinstance(value, str) and value in STATE_REASONS))
    }  # fmt: skip
    assert (len(of_stages), len(of_control)) == (len(STAGE_REASONS), len(OPERATOR_REASONS) + len(STATE_REASONS))
    assert of_stages - used("images/finetune_stages", "operator") == set()
    assert of_control - used("operator") == set()


def test_no_reason_has_two_meanings() -> None:
    names = [*STAGE_REASONS, *OPERATOR_REASONS, *STATE_REASONS]
    assert len(names) == len(set(names))
