"""Model directories as files: faults are reported before any library is loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.safetensors_header import read_header
from finetune_stages.training import pretrained
from finetune_stages.training.pretrained import Pretrained, has_other_weights, unread


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be damaged."""
    return Path(shutil.copytree(tiny_model, tmp_path / "base_model"))


def test_weights_and_configuration_are_read(model):
    base = Pretrained.open(model)
    head = base.tensors["lm_head.weight"]
    assert (head.dtype, head.shape, head.size) == ("F32", (1024, 64), 4 * 1024 * 64)
    assert base.dtype == "F32"
    assert base.size == 4 * base.parameters
    assert base.text_config("hidden_size", 0) == 64
    assert base.text_config("no_such_number", 7) == 7


def test_numbers_of_the_language_model_are_found_inside_a_multimodal_one(model):
    base = Pretrained(model, {"text_config": {"hidden_size": 12}}, {})
    assert base.text_config("hidden_size", 0) == 12


def test_headers_agree_with_the_library(tmp_path):
    tensors = {"a": torch.zeros(3, 4, dtype=torch.bfloat16), "b": torch.zeros((), dtype=torch.int64), "c": torch.zeros(0, 5)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "x.safetensors", "m")
    found = {name: (tensor.dtype, tensor.shape, tensor.size) for name, tensor in header.items()}
    assert found == {"a": ("BF16", (3, 4), 24), "b": ("I64", (), 8), "c": ("F32", (0, 5), 0)}


def test_the_dtype_is_that_of_most_weights(tmp_path, model):
    save_file(
        {"w": torch.zeros(9, 9, dtype=torch.bfloat16), "b": torch.zeros(9), "i": torch.zeros(999, dtype=torch.int64)},
        model / "model.safetensors",
    )
    assert Pretrained.open(model).dtype == "BF16"


def test_shards_are_read_through_their_index(model):
    (model / "model.safetensors").unlink()
    save_file({"a": torch.zeros(2)}, model / "model-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(3)}, model / "model-00002-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert set(Pretrained.open(model).tensors) == {"a", "b"}
    (model / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(StageError, match=r"base_model: it has no model-00002-of-00002.safetensors") as raised:
        Pretrained.open(model)
    assert raised.value.reason is reasons.MODEL_INCOMPLETE


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(model, name):
    (model / name).unlink()
    with pytest.raises(StageError, match=f"base_model: (it has no )?{name}") as raised:
        Pretrained.open(model)
    assert raised.value.reason is reasons.MODEL_INCOMPLETE


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _no_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 64)


def _lying_header(path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [5], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)


@pytest.mark.parametrize("damage", [_cut, _no_header, _lying_header])
def test_damaged_weights_are_reported(model, damage):
    damage(model / "model.safetensors")
    with pytest.raises(
        StageError, match=r"base_model: model.safetensors is damaged: .*; download or save the model again"
    ) as raised:
        Pretrained.open(model)
    assert raised.value.reason is reasons.MODEL_CORRUPT


def test_a_configuration_that_is_no_object(model):
    (model / "config.json").write_text("[]")
    with pytest.raises(StageError) as raised:
        Pretrained.open(model)
    assert raised.value.reason is reasons.MODEL_CORRUPT


@pytest.mark.parametrize(
    ("stated", "how"), [({"quant_method": "gptq"}, "gptq"), ({"bits": 4}, "a quantization"), ("x", "a quantization")]
)
def test_quantized_weights_are_rejected(model, stated, how):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "quantization_config": stated}))
    with pytest.raises(StageError, match=rf"the weights are quantized \(config.json states {how}\)") as raised:
        Pretrained.open(model)
    assert raised.value.reason is reasons.MODEL_UNSUPPORTED


@pytest.mark.parametrize(
    "stated",
    [{"compression_config": {"quant_method": "fp8"}}, {"text_config": {"quantization_config": {"quant_method": "fp8"}}}],
)
def test_quantization_is_found_wherever_stage_model_finds_it(model, stated):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **stated}))
    with pytest.raises(StageError, match=r"the weights are quantized \(config.json states fp8\)") as raised:
        Pretrained.open(model)
    assert raised.value.reason is reasons.MODEL_UNSUPPORTED


def test_one_file_comes_before_an_index_as_in_transformers(model):
    """Some repositories have both, and stage *model* takes the one file."""
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    assert "lm_head.weight" in Pretrained.open(model).tensors


def test_a_configuration_may_state_that_nothing_is_quantized(model):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "quantization_config": None}))
    assert Pretrained.open(model).dtype == "F32"


def test_everything_but_the_weights_is_reused(model, tmp_path):
    base = Pretrained.open(model)
    for name in ("LICENSE", "modeling_own.py", "pytorch_model.bin", "model.safetensors.index.json", ".finetune.json"):
        (model / name).write_text("{}")
    (model / "additional_chat_templates").mkdir()
    (model / "additional_chat_templates" / "rag.jinja").write_text("x")
    target = tmp_path / "tuned"
    target.mkdir()
    base.copy_companions(target)
    names = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert names == {
        "LICENSE", "modeling_own.py", "additional_chat_templates/rag.jinja", "chat_template.jinja", "config.json",
        "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert (target / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()
    assert json.loads((target / "config.json").read_text()) == {**base.config, "use_cache": True}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (set(), []),
        ({"v_head.weight"}, ["does not read v_head.weight, so the fine-tuned model has none"]),
        (
            {"mtp.b", "mtp.a", "z"},
            ["does not read mtp.a and 2 more tensors, so the fine-tuned model has none of these values."],
        ),
    ],
)
def test_tensors_that_no_class_reads_are_reported(names, words):
    found = unread(names)
    assert len(found) == len(words)
    assert all(word in warning for word, warning in zip(words, found, strict=True))


def test_a_changed_weight_is_found_wherever_it_is(model, tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "_PART", 1000)
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    assert not has_other_weights(model, copy)
    tensors = load_file(model / "model.safetensors")
    name = max(tensors)
    tensors[name].view(-1)[-1] += 1
    save_file(dict(reversed(tensors.items())), copy / "model.safetensors", metadata={"format": "pt"})
    assert has_other_weights(model, copy)
    save_file({**tensors, name: tensors[name].bfloat16()}, copy / "model.safetensors")
    assert has_other_weights(model, copy)


def test_weights_of_integers_are_quantized(model):
    """transformers casts them, so that a model of I8 without scales trains from zeros. Counters are not weights."""
    tensors = load_file(model / "model.safetensors")
    tensors["position_ids"] = torch.arange(4)
    save_file(tensors, model / "model.safetensors")
    assert "position_ids" in Pretrained.open(model).tensors
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.int8)
    save_file(tensors, model / "model.safetensors")
    with pytest.raises(StageError, match=r"the weights are quantized \(I8\)") as raised:
        Pretrained.open(model)
    assert raised.value.reason is reasons.MODEL_UNSUPPORTED
