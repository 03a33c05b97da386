"""Reruns from every stage, each with an edit of the section that its stage reads."""

from __future__ import annotations

from typing import Any

CHANGES: dict[str, dict[str, Any]] = {
    "dataset": {"dataset": {"uri": "org/rows"}}, "model": {"model": {"uri": "org/other"}}, "training": {"training": {"epochs": 9}},
    "evaluation": {"evaluation": {"tasks": [], "limit": 3}},
    "gate": {"gate": {"requirements": [{"metric": "holdout.bits_per_byte", "max": 9.0}]}}, "registration": {"registry": {"name": "other"}},
}  # fmt: skip
"""Parts of ``spec`` by the stage that a rerun begins with."""
