"""Hard limit of a model's sequence length: positions that have a learned or precomputed embedding each.

Models with rotary positions compute any position, so that their configuration states the trained length, not a limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_stages.sdk.model_config import number, text_config

_FIELDS = ("n_positions", "max_position_embeddings", "max_seq_len")
_DEFAULTS = {
    "bert": 512, "big_bird": 4096, "biogpt": 1024, "camembert": 512, "codegen": 2048, "ctrl": 256, "electra": 512, "gpt2": 1024,
    "gpt_bigcode": 1024, "gpt_neo": 2048, "gptj": 2048, "megatron-bert": 512, "mpt": 2048, "openai-gpt": 512, "opt": 2048,
    "rembert": 512, "roberta": 512, "xlm": 512, "xlm-roberta": 512,
}  # fmt: skip
"""Defaults of transformers by ``model_type``, if ``config.json`` does not state the limit."""
_AFTER_PADDING = ("camembert", "roberta", "xlm-roberta")
"""Types whose positions start after that of the padding token."""


def hard_positions(config: Mapping[str, Any]) -> int | None:
    """Return the largest number of tokens in a sequence, from ``config.json``; ``None`` if there is no limit.

    A longer sequence causes an IndexError, or a device-side assertion on a GPU.
    """
    inner = text_config(config)
    text = inner if "model_type" in inner else config
    kind = text.get("model_type")
    if not isinstance(kind, str) or kind not in _DEFAULTS:
        return None
    stated = number(text, *_FIELDS)
    padding = text.get("pad_token_id", 1)
    used = padding + 1 if kind in _AFTER_PADDING and isinstance(padding, int) else 0
    return (_DEFAULTS[kind] if stated is None else stated) - used
