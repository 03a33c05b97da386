"""The limit of a model's positions, compared with what transformers' own classes can read."""

from __future__ import annotations

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from finetune_stages.sources.positions import _DEFAULTS, hard_positions

_GPT = {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
_DECODER = {"max_position_embeddings": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
_ENCODER = {**_DECODER, "intermediate_size": 16, "is_decoder": True}
_AFTER_PADDING = {**_ENCODER, "max_position_embeddings": 34}
_SMALL = {
    "bert": _ENCODER,
    "big_bird": {**_ENCODER, "attention_type": "original_full"},
    "biogpt": _ENCODER,
    "camembert": _AFTER_PADDING,
    "codegen": {**_GPT, "n_embd": 32, "n_head": 4, "rotary_dim": 4},
    "ctrl": {**_GPT, "dff": 16},
    "electra": _ENCODER,
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "gpt_neo": {
        "max_position_embeddings": 32,
        "hidden_size": 16,
        "num_layers": 1,
        "num_heads": 2,
        "attention_types": [[["global"], 1]],
    },
    "gptj": {**_GPT, "rotary_dim": 4},
    "megatron-bert": _ENCODER,
    "mpt": {"max_seq_len": 32, "d_model": 16, "n_layers": 1, "n_heads": 2},
    "openai-gpt": _GPT,
    "opt": {**_DECODER, "ffn_dim": 16, "word_embed_proj_dim": 16},
    "rembert": {**_ENCODER, "input_embedding_size": 16, "output_embedding_size": 16},
    "roberta": _AFTER_PADDING,
    "xlm": {"max_position_embeddings": 32, "emb_dim": 16, "n_layers": 1, "n_heads": 2},
    "xlm-roberta": _AFTER_PADDING,
}
_COMPUTED = {
    "bloom": {"hidden_size": 16, "n_layer": 1, "n_head": 2},
    "falcon": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "alibi": True},
    "gpt_neox": {**_DECODER, "intermediate_size": 16},
    "llama": {**_DECODER, "intermediate_size": 16},
    "qwen2": {**_DECODER, "num_key_value_heads": 2, "intermediate_size": 16},
    "xglm": {"max_position_embeddings": 32, "d_model": 16, "num_layers": 1, "attention_heads": 2, "ffn_dim": 16},
}


def read(model, tokens: int) -> None:
    with torch.no_grad():
        model(input_ids=torch.full((1, tokens), 5))


def made(kind: str, settings: dict):
    config = CONFIG_MAPPING[kind](vocab_size=50, **settings, **({} if "roberta" in kind else {"pad_token_id": 1}))
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("kind", sorted(_DEFAULTS))
def test_one_token_more_than_the_limit_cannot_be_read(kind):
    model = made(kind, _SMALL[kind])
    assert hard_positions(model.config.to_diff_dict()) == 32
    read(model, 32)
    with pytest.raises((IndexError, RuntimeError)):
        read(model, 33)


@pytest.mark.parametrize("kind", sorted(_COMPUTED))
def test_computed_positions_have_no_limit(kind):
    model = made(kind, _COMPUTED[kind])
    assert hard_positions(model.config.to_dict()) is None
    read(model, 40)


@pytest.mark.parametrize("kind", sorted(_DEFAULTS))
def test_what_transformers_assumes_where_nothing_is_stated(kind):
    config = CONFIG_MAPPING[kind]()
    assert hard_positions({"model_type": kind}) == hard_positions({"model_type": kind, **config.to_dict()})


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({}, None),
        ({"model_type": ["gpt2"]}, None),
        ({"model_type": "gpt2", "n_positions": "many"}, 1024),
        ({"model_type": "llava", "text_config": {"model_type": "opt", "max_position_embeddings": 64}}, 64),
        ({"model_type": "gpt2", "n_positions": 64, "text_config": {}}, 64),
        ({"model_type": "roberta", "pad_token_id": None}, 512),
    ],
)
def test_unusual_configurations(config, limit):
    assert hard_positions(config) == limit
