"""Comparison of the weights' names and shapes with the configuration.

transformers loads most mismatches without an error: it initializes a missing tensor with random numbers, ignores an unknown one, and
ties the embeddings as configured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.model_config import number, text_config

from .architecture import quantized
from .headers import Tensor, is_quantized
from .layers import LAYERS, check_layers

TIED_BY_DEFAULT = (
    "biogpt", "bloom", "cohere", "cohere2", "falcon", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gpt2", "gpt_bigcode",
    "gpt_neo", "lfm2", "mamba", "mpt", "openai-gpt", "opt", "smollm3", "starcoder2",
)  # fmt: skip
UNTIED_BY_DEFAULT = (
    "codegen", "deepseek_v3", "glm", "glm4", "gpt_neox", "gpt_oss", "gptj", "granite", "llama", "mistral", "mixtral", "nemotron", "olmo",
    "olmo2", "olmo3", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "stablelm",
)  # fmt: skip
"""Values of ``model_type`` by transformers' default for tie_word_embeddings."""
_EMBEDDINGS = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|tokens_embed|tok_embeddings|(backbone|rwkv)\.embeddings|transformer\.w)\.weight$"
)
_HEADS = re.compile(
    r"(^|\.)(lm_head|lm_head\.decoder|embed_out|output_projection|generator_lm_head|cls\.predictions\.decoder|pred_layer\.proj|lm_loss)"
    r"\.weight$|^(head|decoder|output|output_layer|transformer\.output_layer|model\.output)\.weight$"
)
_OTHER_HEADS = re.compile(r"^(v_head|value_head|reward_head|regression_head|score|classifier)\.")
_QUANTIZED = re.compile(r"\.(qweight|qzeros|weight_packed|weight_scale(_inv)?|absmax|quant_map|[\w.]*_blocks|SCB)$")

_UNMERGED = re.compile(r"^base_model\.model\.|\.(lora_[AB]|lora_embedding_[AB]|base_layer|modules_to_save)\.")
"""Names in PEFT's wrapper of a model, which transformers does not read."""


def check_tensors(config: Mapping[str, Any], tensors: Mapping[str, Tensor], model: str) -> list[str]:
    """Compare names and shapes with the configuration and return warnings for the user.

    Raises:
        StageError: ``ModelUnsupported``: the weights are quantized, or an adapter is not merged. ``ModelIncomplete``: some are missing. ``ModelCorrupt``: the size of
            embeddings or output layer differs from the configuration.
    """
    _reject_quantized(tensors, model)
    if config.get("auto_map"):
        return []  # the model's own class may use other names and shapes
    _reject_unmerged(tensors, model)
    _require_vocabulary(config, tensors, model)
    _require_output_layer(config, tensors, model)
    warnings = [*_layers(config, tensors, model), *_other_heads(tensors)]
    check_layers(config, tensors, model)
    return warnings


def embeddings(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the token embeddings' matrix."""
    return next(_matching(_EMBEDDINGS, tensors), None)


def output_layer(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the output layer's matrix, if the files have one."""
    return next(_matching(_HEADS, tensors), None)


def is_tied(config: Mapping[str, Any]) -> bool | None:
    """Return whether the configuration ties embeddings and output layer; ``None`` if neither it nor the model type states that."""
    stated = config.get("tie_word_embeddings", text_config(config).get("tie_word_embeddings"))
    if isinstance(stated, bool):
        return stated
    kind = config.get("model_type")
    return True if kind in TIED_BY_DEFAULT else False if kind in UNTIED_BY_DEFAULT else None


def _matching(pattern: re.Pattern[str], tensors: Mapping[str, Tensor]) -> Iterator[str]:
    for name in sorted(tensors, key=len):
        if pattern.search(name) and len(tensors[name].shape) == 2 and not re.search(r"\.layers\.|vision|visual|audio", name):
            yield name


def _reject_quantized(tensors: Mapping[str, Tensor], model: str) -> None:
    for name, tensor in tensors.items():
        if is_quantized(name, tensor):
            raise quantized(model, f"{name} has the type {tensor.dtype}")
        if _QUANTIZED.search(name):
            raise quantized(model, f"they include {name}")


def _reject_unmerged(tensors: Mapping[str, Tensor], model: str) -> None:
    name = next((name for name in tensors if _UNMERGED.search(name)), None)
    if name is not None:
        raise StageError(
            reasons.MODEL_UNSUPPORTED,
            f"{model}: the weights include {name}, a name of an adapter that is not merged; merge it with merge_and_unload of PEFT, and"
            " save the model that it returns.",
        )


def _require_vocabulary(config: Mapping[str, Any], tensors: Mapping[str, Tensor], model: str) -> None:
    stated = number(config, "vocab_size")
    for name in (embeddings(tensors), output_layer(tensors)):
        if name is not None and stated is not None and tensors[name].shape[0] != stated:
            raise StageError(
                reasons.MODEL_CORRUPT,
                f"{model}: {name} has {tensors[name].shape[0]:,} rows and config.json states vocab_size {stated:,}; save model and"
                " configuration together.",
            )


def _require_output_layer(config: Mapping[str, Any], tensors: Mapping[str, Tensor], model: str) -> None:
    head = output_layer(tensors)
    if embeddings(tensors) is None and head is None:
        return  # unknown names; training checks them with the model's own class
    if head is None and is_tied(config) is False:
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            f"{model}: the weights have no output layer (lm_head.weight), and config.json does not tie it to the embeddings"
            " (tie_word_embeddings), so it would be initialized with random numbers; use a model for text generation, or"
            " correct config.json.",
        )
    if embeddings(tensors) is None and is_tied(config) is False:
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            f"{model}: the weights have no embeddings (model.embed_tokens.weight), and config.json does not tie them to the output"
            " layer (tie_word_embeddings); save the model again with all its weights.",
        )


def _layers(config: Mapping[str, Any], tensors: Mapping[str, Tensor], model: str) -> list[str]:
    stated = number(config, "num_hidden_layers", "n_layer", "num_layers", "n_layers")
    present = {int(found[1]) for name in tensors if (found := LAYERS.match(name))}
    if stated is None or not present:
        return []
    if stated < 1:
        raise StageError(
            reasons.MODEL_CORRUPT,
            f"{model}: config.json states {stated} layers and the weights have {len(present)}; correct num_hidden_layers.",
        )
    missing = sorted(set(range(stated)) - present)
    if missing:
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            f"{model}: the weights have no layer {missing[0]} and config.json states {stated} layers; save model and configuration"
            " together, with all weights.",
        )
    more = len(present) - stated - (number(config, "num_nextn_predict_layers", "mtp_num_hidden_layers") or 0)
    if more <= 0:
        return []
    beyond = f"the weights have {len(present)}; the last {more} are neither trained nor part of the fine-tuned model."
    return [f"config.json: it states {stated} layers and {beyond}"]


def _other_heads(tensors: Mapping[str, Tensor]) -> list[str]:
    found = next((name for name in tensors if _OTHER_HEADS.match(name)), None)
    if found is None:
        return []
    return [f"The base model's {found} is not part of a model for text generation; the fine-tuned model omits it."]
