"""Selection of an algorithm's weights by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from finetune_contract import reasons
from finetune_stages.sdk import StageError

DEFAULT_PATTERNS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Names of the attention and MLP projections in Llama-like models."""
ALL_LINEAR = "all-linear"
"""PEFT's name for all linear layers except the output layer."""


_NAMES_SHOWN = 8


def require_matches(names: Iterable[str], patterns: Sequence[str], field: str) -> None:
    """Check that each pattern, or one of the default patterns, is part of the name of a linear layer's weight.

    Args:
        names: of the weights of all linear layers.
        patterns: the patterns of the run.
        field: the field with the patterns.

    Raises:
        StageError: ``NoMatchingWeights``.
    """
    known = list(names)
    missing = [pattern for pattern in patterns if not any(pattern in name for name in known)]
    if missing or not any(is_target(name, patterns) for name in known):
        shown = list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in known))[:_NAMES_SHOWN]
        raise StageError(
            reasons.NO_MATCHING_WEIGHTS,
            f"{field}: no linear layer matches {missing or list(DEFAULT_PATTERNS)}; use names such as {', '.join(shown)}.",
        )


def is_target(name: str, patterns: Sequence[str] = ()) -> bool:
    """Return whether one of the patterns is part of a weight's name."""
    return any(pattern in name for pattern in patterns or DEFAULT_PATTERNS)
