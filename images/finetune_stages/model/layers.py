"""Comparison of the tensors of every layer with those of the model type, and of their shapes with the configuration.

Only types whose layers all have the same tensors are known here. Training compares all others with the model's own class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.model_config import text_config

from .headers import Tensor

LAYERS = re.compile(
    r"^(?:(?:model|transformer|gpt_neox|backbone|language_model|text_model|decoder)\.)*(?:layers|h|blocks)\.(\d+)\."
)
"""Beginning of the name of a layer's tensor, with the number of the layer."""

_ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
_MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
_NORMS = ("input_layernorm", "post_attention_layernorm")
_HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
_OUTER_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")
_LLAMA = (*_ATTENTION, *_MLP, *_NORMS)
_GEMMA2 = (*_LLAMA, "pre_feedforward_layernorm", "post_feedforward_layernorm")
_GPT2 = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "ln_1", "ln_2")
_FUSED = ("query_key_value", "dense")
_GPT_MLP = ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h")
_BLOOM = (*(f"self_attention.{name}" for name in _FUSED), *_GPT_MLP)

PARTS: dict[str, tuple[str, ...]] = {
    "bloom": (*_BLOOM, *_NORMS),
    "cohere": (*_ATTENTION, *_MLP, "input_layernorm"),
    "cohere2": (*_ATTENTION, *_MLP, "input_layernorm"),
    "falcon": _BLOOM,
    "gemma": _LLAMA,
    "gemma2": _GEMMA2,
    "gemma3_text": (*_GEMMA2, *_HEAD_NORMS),
    "glm": (*_ATTENTION, "mlp.gate_up_proj", "mlp.down_proj", *_NORMS),
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neox": (*(f"attention.{name}" for name in _FUSED), *_GPT_MLP, *_NORMS),
    "gptj": ("attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.out_proj", "mlp.fc_in", "mlp.fc_out", "ln_1"),
    "granite": _LLAMA,
    "llama": _LLAMA,
    "mamba": ("mixer.in_proj", "mixer.conv1d", "mixer.x_proj", "mixer.dt_proj", "mixer.out_proj", "norm"),
    "mistral": _LLAMA,
    "mixtral": (*_ATTENTION, *_NORMS),
    "mpt": ("attn.Wqkv", "attn.out_proj", "ffn.up_proj", "ffn.down_proj", "norm_1", "norm_2"),
    "nemotron": (*_ATTENTION, "mlp.up_proj", "mlp.down_proj", *_NORMS),
    "olmo": (*_ATTENTION, *_MLP),
    "olmo2": (*_ATTENTION, *_MLP, *_HEAD_NORMS, *_OUTER_NORMS),
    "olmo3": (*_ATTENTION, *_MLP, *_HEAD_NORMS, *_OUTER_NORMS),
    "opt": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2"),
    "phi": (*_ATTENTION[:3], "self_attn.dense", "mlp.fc1", "mlp.fc2", "input_layernorm"),
    "phi3": ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj", *_NORMS),
    "qwen2": _LLAMA,
    "qwen2_moe": (*_ATTENTION, *_NORMS),
    "qwen3": (*_LLAMA, *_HEAD_NORMS),
    "qwen3_moe": (*_ATTENTION, *_HEAD_NORMS, *_NORMS),
    "smollm3": _LLAMA,
    "stablelm": (*_ATTENTION, *_MLP, "input_layernorm"),
    "starcoder2": (*_ATTENTION, "mlp.c_fc", "mlp.c_proj", *_NORMS),
}
"""By ``model_type``, the weights that every layer of such a model has, whatever its configuration states."""

_LAST_NORMS = {
    "norm_f": ("mamba", "mpt"),
    "ln_f": ("bloom", "falcon", "gpt2", "gpt_bigcode", "gptj"),
    "final_layer_norm": ("gpt_neox",),
    "final_layernorm": ("phi",),
    "norm": (
        "cohere", "cohere2", "gemma", "gemma2", "gemma3_text", "glm", "granite", "llama", "mistral", "mixtral", "nemotron", "olmo2", "olmo3",
        "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "stablelm", "starcoder2",
    ),
}  # fmt: skip
LAST_NORM = {kind: name for name, kinds in _LAST_NORMS.items() for kind in kinds}
"""By ``model_type``, the name of the norm after the last layer."""
WITHOUT_BIAS = (
    "gemma",
    "gemma2",
    "gemma3_text",
    "granite",
    "llama",
    "mistral",
    "mixtral",
    "olmo",
    "olmo2",
    "olmo3",
    "qwen3",
    "qwen3_moe",
)
"""Types whose attention has biases only if ``attention_bias`` is true (Mistral and Mixtral: never)."""
_HEADS_DIVIDE = ("granite", "llama", "mistral", "mixtral", "olmo", "olmo2", "olmo3", "qwen2", "stablelm", "starcoder2")
"""Types with heads of ``hidden_size / num_attention_heads`` unless ``head_dim`` is stated."""
_SHAPES = {
    "self_attn.q_proj": ("attention", "hidden"), "self_attn.k_proj": ("keys", "hidden"), "self_attn.v_proj": ("keys", "hidden"),
    "self_attn.o_proj": ("hidden", "attention"), "mlp.gate_proj": ("mlp", "hidden"), "mlp.up_proj": ("mlp", "hidden"),
    "mlp.down_proj": ("hidden", "mlp"), "input_layernorm": ("hidden",), "post_attention_layernorm": ("hidden",),
}  # fmt: skip
"""Shapes of the layers that have these names, in all types with :data:`_ATTENTION`."""


@dataclass(frozen=True)
class _Size:
    """A size that the configuration states, in numbers, and how it is computed there."""

    value: int
    source: str


def check_layers(config: Mapping[str, Any], tensors: Mapping[str, Tensor], model: str) -> None:
    """Compare the tensors of every layer, and the norm after the last one, with those of the model type.

    Raises:
        StageError: ``ModelIncomplete``: one is missing. ``ModelCorrupt``: a shape differs from the configuration or from the shape in
            other layers, or attention has biases that the model type does not read.
    """
    text = text_config(config)
    kind = str(text.get("model_type", config.get("model_type")))
    found = _by_layer(text, tensors)
    if kind not in PARTS or not found:
        return
    _require_parts(kind, found, model)
    _require_last_norm(kind, tensors, model)
    _reject_biases(kind, text, found, model)
    sizes = _sizes(kind, text, model) if set(PARTS[kind]) >= set(_ATTENTION) else {}
    for name, part, tensor in _parts(kind, found):
        _require_shape(name, tensor, sizes, _SHAPES.get(part, ()), model)
        first_name, first = found[min(found)][f"{part}.weight"]
        if tensor.shape != first.shape:
            raise _corrupt(model, f"{name} has the shape {list(tensor.shape)} and {first_name} {list(first.shape)}")


def _by_layer(text: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[int, dict[str, tuple[str, Tensor]]]:
    """Return names and tensors by layer and by the name inside of the layer. Layers beyond the stated number are left out."""
    stated = next((text[key] for key in ("num_hidden_layers", "n_layer", "n_layers") if isinstance(text.get(key), int)), None)
    found: dict[int, dict[str, tuple[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        match = LAYERS.match(name)
        if match and (stated is None or int(match[1]) < stated):
            found.setdefault(int(match[1]), {})[name[match.end() :]] = (name, tensor)
    return found


def _parts(kind: str, found: Mapping[int, Mapping[str, tuple[str, Tensor]]]) -> Iterator[tuple[str, str, Tensor]]:
    """Yield the name, the part and the tensor of all weights of :data:`PARTS`."""
    for layer in sorted(found):
        for part in PARTS[kind]:
            name, tensor = found[layer][f"{part}.weight"]
            yield name, part, tensor


def _require_parts(kind: str, found: Mapping[int, Mapping[str, tuple[str, Tensor]]], model: str) -> None:
    for _, present in sorted(found.items()):
        missing = next((part for part in PARTS[kind] if f"{part}.weight" not in present), None)
        if missing is not None:
            name = next(iter(present.values()))[0]
            match = LAYERS.match(name)
            assert match is not None  # _by_layer keeps only such names
            raise _incomplete(model, f"{name[: match.end()]}{missing}.weight", kind)


def _require_last_norm(kind: str, tensors: Mapping[str, Tensor], model: str) -> None:
    norm = LAST_NORM.get(kind)
    if norm is None or any(
        f".{name}".endswith(f".{norm}.weight") and not re.search(r"\.\d+\.|vision|visual|audio", name) for name in tensors
    ):
        return
    raise _incomplete(model, f"{norm}.weight", kind)


def _reject_biases(kind: str, text: Mapping[str, Any], found: Mapping[int, Mapping[str, tuple[str, Tensor]]], model: str) -> None:
    if kind not in WITHOUT_BIAS or text.get("attention_bias"):
        return
    for present in found.values():
        for part in _ATTENTION:
            if f"{part}.bias" in present:
                name = present[f"{part}.bias"][0]
                raise StageError(
                    reasons.MODEL_CORRUPT,
                    f"{model}: the weights have {name}, which a model of type {kind} does not read as config.json is; correct model_type or"
                    " attention_bias, or save model and configuration together.",
                )


def _sizes(kind: str, text: Mapping[str, Any], model: str) -> dict[str, _Size]:
    """Return the sizes that the configuration states. A size that transformers' defaults determine is left out."""
    stated = {
        key: text[key]
        for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim")
        if isinstance(text.get(key), int) and text[key] > 0
    }
    hidden, heads, keys = stated.get("hidden_size"), stated.get("num_attention_heads"), stated.get("num_key_value_heads")
    width, how = stated.get("head_dim"), "head_dim"
    if width is None and kind in _HEADS_DIVIDE and hidden and heads:
        if hidden % heads:
            raise _corrupt(model, f"config.json states hidden_size {hidden:,}, which num_attention_heads {heads} does not divide")
        width, how = hidden // heads, "hidden_size / num_attention_heads"
    sizes = {}
    if hidden:
        sizes["hidden"] = _Size(hidden, "hidden_size")
    if "intermediate_size" in stated:
        sizes["mlp"] = _Size(stated["intermediate_size"], "intermediate_size")
    if width and heads:
        sizes["attention"] = _Size(heads * width, "num_attention_heads * head_dim" if how == "head_dim" else "hidden_size")
    if width and keys:
        sizes["keys"] = _Size(keys * width, f"num_key_value_heads * {how}")
    return sizes


def _require_shape(name: str, tensor: Tensor, sizes: Mapping[str, _Size], expected: tuple[str, ...], model: str) -> None:
    if not sizes or not expected:
        return
    known = [sizes.get(size) for size in expected]
    wrong = [size for size, found in zip(known, tensor.shape, strict=False) if size is not None and size.value != found]
    if len(tensor.shape) != len(expected) or wrong:
        states = "".join(f", and config.json states {size.value:,} ({size.source})" for size in wrong[:1])
        raise _corrupt(model, f"{name} has the shape {list(tensor.shape)}{states}")


def _incomplete(model: str, name: str, kind: str) -> StageError:
    return StageError(
        reasons.MODEL_INCOMPLETE,
        f"{model}: the weights lack {name}, which every model of type {kind} has; save model and configuration together, with all weights.",
    )


def _corrupt(model: str, what: str) -> StageError:
    return StageError(reasons.MODEL_CORRUPT, f"{model}: {what}; save model and configuration together.")
