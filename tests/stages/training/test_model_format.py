"""Models that older versions of transformers misread."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.training.model_format import require_readable
from finetune_stages.training.pretrained import Pretrained


@pytest.mark.parametrize(
    ("config", "tokenizer", "found"),
    [
        ({"rope_parameters": {"rope_theta": 1e6}}, {}, "config.json has rope_parameters"),
        ({"text_config": {"rope_parameters": {"rope_theta": 1e6}}}, {}, "config.json has rope_parameters"),
        ({"rope_theta": 1e6, "rope_parameters": {"rope_theta": 1e4}}, {}, "config.json has rope_parameters"),
        ({"rope_theta": 1e6, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, {}, "config.json has rope_parameters"),
        (
            {"rope_theta": 1e6, "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}}},
            {},
            "config.json has rope_parameters",
        ),
        ({}, {"extra_special_tokens": ["<a>"]}, "tokenizer_config.json has a list of extra_special_tokens"),
        ({}, {"tokenizer_class": "TokenizersBackend"}, "tokenizer_config.json has the class TokenizersBackend"),
    ],
)  # fmt: skip
def test_a_model_of_transformers_5_is_rejected_where_it_would_be_misread(
    tmp_path: Path, config: dict[str, object], tokenizer: dict[str, object], found: str
) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    base = Pretrained(tmp_path, config, {})
    with pytest.raises(StageError, match=f"saved with transformers 5 \\({found}\\), and transformers 4.57.1 of") as raised:
        require_readable(base, "4.57.1")
    assert raised.value.reason is reasons.ENGINE_MISSING
    require_readable(base, "5.0.0")
    require_readable(base)


@pytest.mark.parametrize("tokenizer", [None, "no JSON", "[]", '{"tokenizer_class": "Qwen2Tokenizer"}'])
def test_other_models_are_read_by_all_versions(tmp_path: Path, tokenizer: str | None) -> None:
    if tokenizer is not None:
        (tmp_path / "tokenizer_config.json").write_text(tokenizer)
    both = {"rope_parameters": {"rope_theta": 1e6}, "rope_theta": 1e6}
    scaling = {"rope_type": "yarn", "factor": 4.0}
    scaled = {"rope_parameters": {**scaling, "rope_theta": 1e6}, "rope_theta": 1e6, "rope_scaling": scaling}
    for config in ({}, {"rope_theta": 1e6}, {"rope_parameters": None}, both, scaled):
        require_readable(Pretrained(tmp_path, config, {}), "4.57.1")
