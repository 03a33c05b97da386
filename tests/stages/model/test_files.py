"""Which files make up a model, and a file that becomes shorter while it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_stages.model.files import INDEX, WEIGHTS, settings, weights
from finetune_stages.model.headers import Tensor
from finetune_stages.model.ties import contradiction
from finetune_stages.sdk import StageError


def test_an_index_is_not_taken_beside_the_one_file(tmp_path: Path) -> None:
    """transformers opens the one file; a reader that prefers the index would miss the shards."""
    names = ["config.json", WEIGHTS, INDEX, "model-00001-of-00002.safetensors"]
    assert settings(names) == ["config.json"]
    assert weights(names, tmp_path, "m") == [WEIGHTS]
    assert settings(["config.json", INDEX]) == ["config.json", INDEX]


def test_a_file_that_is_shorter_than_its_header_states_is_not_read_forever(tmp_path: Path) -> None:
    file = tmp_path / WEIGHTS
    file.write_bytes(b"x" * 4)
    tensors = {
        "model.embed_tokens.weight": Tensor("F32", (2, 2), 0, 16),
        "lm_head.weight": Tensor("F32", (2, 2), 0, 16),
    }
    with pytest.raises(StageError, match="became shorter while it was read; download or save the model again") as raised:
        contradiction({"tie_word_embeddings": True}, dict.fromkeys(tensors, file), tensors)
    assert raised.value.reason.name == "ModelCorrupt"
