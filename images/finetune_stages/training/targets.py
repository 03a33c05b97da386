"""Which weights OSFT treats, by name."""

from __future__ import annotations

from finetune_contract.documents import OsftInputs

DEFAULT_PATTERNS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The attention and MLP projections, as the models that descend from Llama call them."""


def is_target(name: str, inputs: OsftInputs) -> bool:
    """Whether one of the patterns is part of a weight's name."""
    return any(pattern in name for pattern in inputs.target_patterns or DEFAULT_PATTERNS)
