"""Selection of an algorithm's weights by name."""

from __future__ import annotations

from collections.abc import Sequence

DEFAULT_PATTERNS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Names of the attention and MLP projections in Llama-like models."""
ALL_LINEAR = "all-linear"
"""PEFT's name for all linear layers except the output layer."""


def is_target(name: str, patterns: Sequence[str] = ()) -> bool:
    """Return whether one of the patterns is part of a weight's name."""
    return any(pattern in name for pattern in patterns or DEFAULT_PATTERNS)
