"""What is known of the layers of model types, compared with the classes of transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from finetune_stages.model.headers import Tensor
from finetune_stages.model.layers import LAST_NORM, LAYERS, PARTS, WITHOUT_BIAS, check_layers
from finetune_stages.sdk import StageError

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((kind, {}) for kind in PARTS),
    ("cohere", {"use_qk_norm": True}),
    ("falcon", {"new_decoder_architecture": True}),
    ("falcon", {"parallel_attn": False, "multi_query": False, "bias": True}),
    ("gpt_bigcode", {"multi_query": False}),
    ("gpt_neox", {"use_parallel_residual": False}),
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"head_dim": 96, "num_key_value_heads": 4}),
    ("olmo", {"clip_qkv": 8.0}),
    ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 64}),
    ("phi", {"qk_layernorm": True}),
    ("qwen2_moe", {"mlp_only_layers": [1], "decoder_sparse_step": 2}),
    ("qwen3_moe", {"mlp_only_layers": [0]}),
    ("stablelm", {"use_parallel_residual": True, "qk_layernorm": True}),
    ("starcoder2", {"use_bias": False}),
]
DEFAULTS = {"nemotron": {"num_key_value_heads": 8}}
"""Settings without which the class cannot be built."""


def built(kind: str, **changes: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """The whole configuration, what of it differs from the defaults, and the tensors of transformers' class with three layers."""
    config = CONFIG_MAPPING[kind](**{**DEFAULTS.get(kind, {}), **changes})
    setattr(config, config.attribute_map.get("num_hidden_layers", "num_hidden_layers"), 3)
    if vars(config).get("layer_types"):
        config.layer_types = config.layer_types[:3]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    tensors = {name: Tensor("F32", tuple(value.shape), 0, 0) for name, value in model.state_dict().items()}
    return config.to_dict(), {**config.to_diff_dict(), "model_type": kind}, tensors


@pytest.mark.parametrize(("kind", "changes"), VARIANTS, ids=[f"{kind}-{'-'.join(changes)}" for kind, changes in VARIANTS])
def test_models_of_transformers_pass(kind: str, changes: dict[str, Any]) -> None:
    whole, stated, tensors = built(kind, **changes)
    assert {int(match[1]) for name in tensors if (match := LAYERS.match(name))} == {0, 1, 2}
    check_layers(whole, tensors, "m")
    check_layers(stated, tensors, "m")
    check_layers({"model_type": "any", "text_config": whole}, {f"language_model.{name}": tensors[name] for name in tensors}, "m")


@pytest.mark.parametrize("kind", PARTS)
def test_every_known_tensor_is_required(kind: str) -> None:
    whole, _, tensors = built(kind)
    for part in (*(f".1.{part}.weight" for part in PARTS[kind]), *([f"{LAST_NORM[kind]}.weight"] if kind in LAST_NORM else [])):
        name = next(name for name in tensors if name.endswith(part) and (part[0] == "." or not LAYERS.match(name)))
        without = {other: tensor for other, tensor in tensors.items() if other != name}
        with pytest.raises(StageError, match=f"lack .*{part}, which every model of type {kind} has") as raised:
            check_layers(whole, without, "m")
        assert raised.value.reason.name == "ModelIncomplete"


@pytest.mark.parametrize("kind", WITHOUT_BIAS)
def test_biases_that_the_class_does_not_read(kind: str) -> None:
    whole, stated, tensors = built(kind)
    assert not any(name.endswith("q_proj.bias") for name in tensors)
    name = "model.layers.2.self_attn.q_proj.bias"
    tensors[name] = Tensor("F32", tensors["model.layers.2.self_attn.q_proj.weight"].shape[:1], 0, 0)
    for config in (whole, stated):
        with pytest.raises(StageError, match=f"the weights have {name}, which a model of type {kind} does not read") as raised:
            check_layers(config, tensors, "m")
        assert raised.value.reason.name == "ModelCorrupt"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": 128}, "q_proj.weight has the shape [4096, 4096], and config.json states 128 (hidden_size)"),
        ({"intermediate_size": 100}, "mlp.gate_proj.weight has the shape [11008, 4096], and config.json states 100 (intermediate_size)"),
        ({"num_attention_heads": 16, "head_dim": 128}, "config.json states 2,048 (num_attention_heads * head_dim)"),
        ({"num_attention_heads": 3, "head_dim": None}, "config.json states hidden_size 4,096, which num_attention_heads 3 does not divide"),
        ({"num_key_value_heads": 8, "head_dim": None}, "config.json states 1,024 (num_key_value_heads * hidden_size / num_attention_heads)"),
    ],
)  # fmt: skip
def test_sizes_that_differ_from_the_configuration(changes: dict[str, Any], words: str) -> None:
    whole, _, tensors = built("llama")
    with pytest.raises(StageError) as raised:
        check_layers({**whole, **changes}, tensors, "m")
    assert raised.value.reason.name == "ModelCorrupt"
    assert words in raised.value.message


@pytest.mark.parametrize(("kind", "part"), [("llama", "mlp.up_proj"), ("gpt2", "mlp.c_fc"), ("bloom", "mlp.dense_h_to_4h")])
def test_a_transposed_tensor(kind: str, part: str) -> None:
    whole, _, tensors = built(kind)
    name = next(name for name in tensors if name.endswith(f".1.{part}.weight"))
    tensors[name] = Tensor("F32", tensors[name].shape[::-1], 0, 0)
    with pytest.raises(StageError, match="has the shape") as raised:
        check_layers(whole, tensors, "m")
    assert raised.value.reason.name == "ModelCorrupt"
    assert name in raised.value.message


def test_types_with_unlike_layers_are_left_to_training() -> None:
    check_layers({"model_type": "jamba"}, {"model.layers.0.mamba.in_proj.weight": Tensor("F32", (2, 2), 0, 0)}, "m")
