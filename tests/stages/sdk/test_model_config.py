"""Numbers and quantization in a model's configuration, wherever it keeps them."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_stages.sdk.model_config import attention_size, embeddings, number, quantization


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"vocab_size": 7}, 7),
        ({"vocab_size": 7, "text_config": {"vocab_size": 9}}, 9),
        ({"vocab_size": 7, "text_config": {}}, 7),
        ({"text_config": None}, None),
        ({"vocab_size": True}, None),
        ({"vocab_size": "7"}, None),
        ({"vocab_size": 7, "auto_map": {"AutoModelForCausalLM": "own.Own"}}, None),
    ],
)
def test_embeddings(config: dict[str, Any], expected: int | None) -> None:
    assert embeddings(config) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"num_hidden_layers": 28, "hidden_size": 1536, "num_attention_heads": 12}, 28 * 1536),
        ({"num_hidden_layers": 28, "hidden_size": 1024, "num_attention_heads": 16, "head_dim": 128}, 28 * 2048),
        ({"n_layer": 12, "n_embd": 768, "n_head": 12}, 12 * 768),
        ({"text_config": {"num_hidden_layers": 2, "hidden_size": 8}, "hidden_size": 64}, 16),
        ({"num_hidden_layers": 28}, 0),
        ({}, 0),
    ],
)
def test_layers_times_the_dimensions_of_all_heads(config: dict[str, Any], expected: int) -> None:
    assert attention_size(config) == expected


def test_the_first_of_several_names_that_is_stated() -> None:
    assert number({"n_layer": 2, "text_config": {"num_layers": 3}}, "n_layer", "num_layers") == 3
    assert number({"n_layer": 2, "num_layers": 3}, "n_layer", "num_layers") == 2


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"quantization_config": None}, None),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"quantization_config": {"bits": 4}}, "a quantization"),
        ({"compression_config": "x"}, "a quantization"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "a quantization of MLX"),
        ({"quantization": "none"}, None),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, "fp8"),
    ],
)
def test_quantization(config: dict[str, Any], expected: str | None) -> None:
    assert quantization(config) == expected
