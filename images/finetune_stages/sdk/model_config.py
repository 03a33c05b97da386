"""Values of a model's ``config.json``. Multimodal models nest the configuration of their language model one level down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_QUANTIZATION_KEYS = ("quantization_config", "compression_config")


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configuration of the language model."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def number(config: Mapping[str, Any], *names: str) -> int | None:
    """Return the first of these numbers that the language model's configuration, or else the whole one, has."""
    for part in (text_config(config), config):
        for name in names:
            value = part.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
    return None


def embeddings(config: Mapping[str, Any]) -> int | None:
    """Return the number of embeddings; ``None`` if it is not stated, or if the model's own code may define it differently."""
    return None if config.get("auto_map") else number(config, "vocab_size")


def attention_size(config: Mapping[str, Any]) -> int:
    """Return the number of layers times the dimensions of all attention heads; 0 if the configuration does not state them."""
    layers = number(config, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    heads, dimensions = number(config, "num_attention_heads", "n_head", "n_heads"), number(config, "head_dim")
    width = heads * dimensions if heads and dimensions else number(config, "hidden_size", "n_embd", "d_model")
    return (layers or 0) * (width or 0)


def quantization(config: Mapping[str, Any]) -> str | None:
    """Return the name of the quantization, ``a quantization`` if it has no name, ``None`` if there is none."""
    for part in (config, text_config(config)):
        for key in _QUANTIZATION_KEYS:
            stated = part.get(key)
            if stated:
                return str((isinstance(stated, dict) and stated.get("quant_method")) or "a quantization")
        mlx = part.get("quantization")
        if isinstance(mlx, dict) and "bits" in mlx:
            return "a quantization of MLX"
    return None
