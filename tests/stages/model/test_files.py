"""Which files make up a model, and a file that becomes shorter while it is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_stages.model.files import INDEX, WEIGHTS, require_files, settings, weights
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


KINDS = [
    (["adapter_config.json", "adapter_model.safetensors"], "ModelUnsupported", "m: adapter_config.json belongs to an adapter such as LoRA, which is not a complete model or modifies the model in the same directory; merge it into its base model (merge_and_unload) and use a directory without the adapter's files."),
    (["config.json", WEIGHTS, "adapter_config.json"], "ModelUnsupported", "m: adapter_config.json belongs to an adapter such as LoRA, which is not a complete model or modifies the model in the same directory; merge it into its base model (merge_and_unload) and use a directory without the adapter's files."),
    (["README.md", "llama-8b.Q4_K_M.gguf"], "ModelIncomplete", "m: config.json is missing, and the weights are in GGUF, which cannot be trained; use the original model."),
    (["model_index.json", "vae/config.json"], "ModelUnsupported", "m: model_index.json belongs to a pipeline of diffusers, which does not generate text; set model.uri to a decoder-only model for text generation."),
    (["params.json", "consolidated.00.pth"], "ModelIncomplete", "m: config.json is missing, and params.json belongs to the format of Meta and Mistral; use the version of the model that transformers saved."),
    (["pytorch_model.bin"], "ModelIncomplete", "m: config.json is missing, and the weights are in PyTorch's pickle format (.bin); convert it to safetensors with save_pretrained of transformers."),
    (["model.onnx"], "ModelIncomplete", "m: config.json is missing, and the weights are in ONNX, which cannot be trained; use the original model."),
]  # fmt: skip


@pytest.mark.parametrize(("names", "reason", "sentence"), KINDS)
def test_directories_of_another_kind_are_named(names: list[str], reason: str, sentence: str) -> None:
    with pytest.raises(StageError) as raised:
        require_files(names, "m")
    assert (raised.value.reason.name, raised.value.message) == (reason, sentence)
