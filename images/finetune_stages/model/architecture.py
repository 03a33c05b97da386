"""Supported architectures: decoders for text generation with unquantized weights, determined from ``config.json``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.model_config import quantization

_GENERATES = (
    "ForCausalLM",
    "LMHeadModel",
    "ForConditionalGeneration",
    "ModelWithLMHead",
    "DoubleHeadsModel",
    "GenerationDecoder",
)
_MULTIMODAL = (
    "dots3_note", "emu3", "gemma3", "gemma3n", "gemma4", "gemma4_unified", "got_ocr2", "llama4", "mllama", "moss_transcribe_diarize",
    "qwen3_5", "qwen3_5_moe", "qwen4_exp",
)  # fmt: skip
"""Types of multimodal models whose language model transformers loads for text generation."""
_KINDS = {
    "RewardModel": "a reward model",
    "ForSequenceClassification": "a classification or reward model",
    "ForTokenClassification": "a classification or reward model",
    "ForQuestionAnswering": "a model for extractive question answering",
    "ForMultipleChoice": "a classification model",
    "ForMaskedLM": "a masked language model, which does not generate text",
    "ForPreTraining": "a masked language model, which does not generate text",
    "ForImageClassification": "a vision model",
    "ForObjectDetection": "a vision model",
    "ForSpeechSeq2Seq": "a speech model",
    "ForCTC": "a speech model",
    "Model": "an embedding model, or one that was saved without its output layer",
}
_QUANTIZATION_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")


def check_architecture(config: Mapping[str, Any], model: str) -> str:
    """Return the architecture in ``config.json``, which this release can fine-tune.

    Raises:
        StageError: ``ModelIncomplete``: there is none. ``ModelUnsupported``: it cannot be fine-tuned.
    """
    named = config.get("architectures")
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise StageError(
            reasons.MODEL_INCOMPLETE, f"{model}: config.json names no architecture; use a model saved by transformers."
        )
    architecture: str = named[0]
    code = config.get("auto_map")
    if isinstance(code, dict) and "AutoModelForCausalLM" in code:
        return architecture  # the model's own class generates text
    if not isinstance(config.get("model_type"), str):
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            f"{model}: config.json has no model_type, by which transformers chooses the class of the model; use a model saved by transformers.",
        )
    kind = _unsupported_kind(architecture, config)
    if kind:
        raise StageError(
            reasons.MODEL_UNSUPPORTED,
            f"{model}: config.json names {architecture}, {kind}; set model.uri to a decoder-only model for text generation.",
        )
    return architecture


def check_quantization(config: Mapping[str, Any], names: Collection[str], model: str) -> None:
    """Check that the weights are not quantized.

    Raises:
        StageError: ``ModelUnsupported``.
    """
    stated = quantization(config)
    file = next((name for name in _QUANTIZATION_FILES if name in names), None)
    if stated is None and file is None:
        return
    raise quantized(model, f"config.json states {stated}" if stated is not None else f"it has a {file}")


def quantized(model: str, detail: str) -> StageError:
    """Return the rejection of quantized weights."""
    return StageError(
        reasons.MODEL_UNSUPPORTED,
        f"{model}: the weights are quantized ({detail}), and such weights cannot be trained; set model.uri to the original, unquantized model"
        " (F32, F16 or BF16).",
    )


def _unsupported_kind(architecture: str, config: Mapping[str, Any]) -> str | None:
    """Return a description of an unsupported architecture; ``None`` for a decoder that generates text."""
    if config.get("is_encoder_decoder") is True:
        return "an encoder-decoder model"
    if not architecture.endswith(_GENERATES):
        return next((words for end, words in _KINDS.items() if architecture.endswith(end)), "not a model for text generation")
    if architecture.endswith("ForConditionalGeneration") and config.get("model_type") not in _MULTIMODAL:
        return "a multimodal model whose language model transformers does not load by itself"
    return None
