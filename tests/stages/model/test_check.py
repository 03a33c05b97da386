"""What is found wrong with a model before anybody trains it."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from finetune_stages.model.check import Requirements, check_settings, check_weights, read_header
from finetune_stages.model.files import settings, weights
from finetune_stages.sdk import StageError


def edit(path: Path, **changes) -> None:
    content = json.loads(path.read_text())
    for name, value in changes.items():
        if value is None:
            content.pop(name, None)
        else:
            content[name] = value
    path.write_text(json.dumps(content))


def header_of(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(path: Path, header: bytes, body: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header + body)


def check(folder: Path, trust: bool = False) -> tuple[str, int]:
    return check_settings(folder, "m", Requirements(trust)).architecture, check_weights(folder, "m").parameters


def parameters(folder: Path) -> int:
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return sum(weight.numel() for weight in loaded.parameters())


def test_a_whole_model_and_its_parameters(model):
    assert check(model) == ("Qwen2ForCausalLM", parameters(model))


def test_shards_count_the_same(sharded):
    assert check(sharded) == ("Qwen2ForCausalLM", parameters(sharded))


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def change(name, **changes):
    return lambda folder: edit(folder / name, **changes)


@pytest.mark.parametrize(
    ("damage", "reason", "words"),
    [
        (remove("config.json"), "ModelIncomplete", "m: config.json is missing; use a model saved by transformers."),
        (write("config.json", "{"), "ModelCorrupt", "config.json is not JSON"),
        (write("config.json", "[]"), "ModelCorrupt", "config.json is not a JSON object"),
        (
            write("config.json", "\udcff".encode("utf-8", "surrogateescape").decode("latin-1")),
            "ModelCorrupt",
            "config.json is not JSON",
        ),
        (change("config.json", architectures=None), "ModelIncomplete", "config.json names no architecture"),
        (change("config.json", architectures=[]), "ModelIncomplete", "config.json names no architecture"),
        (change("config.json", auto_map={"AutoModel": "x.Y"}), "RemoteCode", "set model.trustRemoteCode to true"),
        (
            change("tokenizer_config.json", auto_map={"AutoTokenizer": ["x.Y", None]}),
            "RemoteCode",
            "auto_map in tokenizer_config.json",
        ),
        (remove("tokenizer_config.json"), "ModelIncomplete", "m: tokenizer_config.json is missing"),
        (write("tokenizer_config.json", "x"), "ModelCorrupt", "tokenizer_config.json is not JSON"),
        (remove("tokenizer.json"), "ModelIncomplete", "m: it has no tokenizer, neither tokenizer.json nor tokenizer.model"),
        (write("tokenizer.json", '{"a": '), "ModelCorrupt", "tokenizer.json is not JSON"),
        (remove("chat_template.jinja"), "ChatTemplateMissing", "m: it has no chat template"),
        (write("chat_template.jinja", ""), "ChatTemplateMissing", "m: it has no chat template"),
        (remove("model.safetensors"), "ModelIncomplete", "m: it has no weights, neither model.safetensors nor"),
    ],
)
def test_what_a_model_may_lack(model, damage, reason, words):
    damage(model)
    with pytest.raises(StageError) as caught:
        check(model)
    assert caught.value.reason.name == reason
    assert words in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ["pytorch_model.bin"],
            "the weights are in PyTorch's pickle format (.bin); convert it to safetensors with save_pretrained",
        ),
        (["consolidated.00.pth"], "pickle format (.pth)"),
        (["model-q4.gguf"], "GGUF, which cannot be trained"),
        (["tf_model.h5"], "TensorFlow's format (.h5); load the model with transformers 4 (from_tf)"),
        (["flax_model.msgpack"], "Flax's format (.msgpack); load the model with transformers 4 (from_flax)"),
    ],
)
def test_weights_in_another_form(model, files, words):
    (model / "model.safetensors").unlink()
    for name in files:
        (model / name).write_text("{}")
    with pytest.raises(StageError) as caught:
        check(model)
    assert caught.value.reason.name == "ModelIncomplete"
    assert words in caught.value.message


@pytest.mark.parametrize(
    "template",
    [
        change("tokenizer_config.json", chat_template="{{ messages }}"),
        change("tokenizer_config.json", chat_template=[{"name": "default", "template": "{{ messages }}"}]),
        lambda folder: (
            (folder / "additional_chat_templates").mkdir(),
            write("additional_chat_templates/default.jinja", "{{ messages }}")(folder),
        ),
    ],
)
def test_other_places_of_a_chat_template(model, template):
    (model / "chat_template.jinja").unlink()
    template(model)
    assert check(model)[0] == "Qwen2ForCausalLM"


def test_code_of_a_trusted_model(model):
    edit(model / "config.json", auto_map={"AutoModel": "x.Y"})
    assert check(model, trust=True)[0] == "Qwen2ForCausalLM"


def test_a_truncated_file(model):
    path = model / "model.safetensors"
    size = path.stat().st_size
    os.truncate(path, size - 1)
    with pytest.raises(StageError) as caught:
        check(model)
    assert caught.value.reason.name == "ModelCorrupt"
    assert caught.value.message == (
        f"m: model.safetensors is damaged: it has {size - 1:,} bytes and its header claims {size:,}; download or save the model again."
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a safetensors file"),
        (b"\x01\x02", "not a safetensors file"),
        (struct.pack("<Q", 5) + b"hello", "not a safetensors file"),
        (struct.pack("<Q", 2) + b"[]", "not a safetensors file"),
        (struct.pack("<Q", 14) + b'{"a": {"b":1}}', "not a safetensors file"),
        (struct.pack("<Q", 2**63) + b"{}", "header claims"),
        (struct.pack("<Q", 2) + b"{}", "the weight files have no tensors"),
        (struct.pack("<Q", 2) + b"{}more", "it has 14 bytes and its header claims 10"),
    ],
)
def test_what_is_no_safetensors_file(model, content, words):
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises(StageError) as caught:
        check(model)
    assert caught.value.reason.name == "ModelCorrupt"
    assert words in caught.value.message


def test_tensors_that_share_bytes(model):
    """The safetensors library rejects such a file, and with it training."""
    path = model / "model.safetensors"
    header, body = header_of(path)
    first, second = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"
    header[first]["data_offsets"] = header[second]["data_offsets"]
    with_header(path, json.dumps(header).encode(), body)
    with pytest.raises(StageError, match="the tensor before it ends at") as caught:
        check(model)
    assert caught.value.reason.name == "ModelCorrupt"


def test_a_gap_between_tensors(model):
    path = model / "model.safetensors"
    header, body = header_of(path)
    header.pop("model.layers.0.self_attn.q_proj.weight")
    with_header(path, json.dumps(header).encode(), body)
    with pytest.raises(StageError, match="and the tensor before it ends at") as caught:
        check(model)
    assert caught.value.reason.name == "ModelCorrupt"


def test_a_tensor_that_is_not_in_its_shard(sharded):
    first = sharded / "model-00001-of-00002.safetensors"
    header, body = header_of(first)
    header["renamed"] = header.pop("lm_head.weight")
    with_header(first, json.dumps(header).encode(), body)
    with pytest.raises(StageError) as caught:
        check(sharded)
    assert caught.value.reason.name == "ModelCorrupt"
    assert "model-00001-of-00002.safetensors lacks lm_head.weight" in caught.value.message


@pytest.mark.parametrize(
    ("damage", "reason", "words"),
    [
        (
            remove("model-00002-of-00002.safetensors"),
            "ModelIncomplete",
            "m: model-00002-of-00002.safetensors in model.safetensors.index.json is missing",
        ),
        (write("model.safetensors.index.json", "{}"), "ModelCorrupt", "has no weight_map"),
        (write("model.safetensors.index.json", '{"weight_map": {"a": 1}}'), "ModelCorrupt", "has no weight_map"),
        (write("model.safetensors.index.json", '{"weight_map": {"a": "../../x"}}'), "ModelCorrupt", "refers to '../../x'"),
        (write("model.safetensors.index.json", "?"), "ModelCorrupt", "is not JSON"),
    ],
)
def test_faulty_indexes(sharded, damage, reason, words):
    damage(sharded)
    with pytest.raises(StageError) as caught:
        check(sharded)
    assert caught.value.reason.name == reason
    assert words in caught.value.message


def test_metadata_of_a_header_is_no_tensor(model):
    path = model / "model.safetensors"
    before = {name: tensor.shape for name, tensor in read_header(path, "m").items()}
    header, body = header_of(path)
    header["__metadata__"] = {"format": "pt"}
    with_header(path, json.dumps(header).encode(), body)
    assert {name: tensor.shape for name, tensor in read_header(path, "m").items()} == before


def test_one_set_of_weights_is_taken_and_all_settings(tmp_path):
    names = [
        "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "merges.txt", "vocab.json",
        "special_tokens_map.json", "chat_template.jinja", "additional_chat_templates/tool.jinja", "modeling_x.py", "LICENSE", "README.md",
        "model.safetensors", "consolidated.safetensors", "pytorch_model.bin", "pytorch_model.bin.index.json", "model.gguf", "tf_model.h5",
        "onnx/config.json", "onnx/model.onnx", "original/params.json", "original/consolidated.00.pth", ".gitattributes", "runs/log.txt",
    ]  # fmt: skip
    assert weights(names, tmp_path, "m") == ["model.safetensors"]
    assert settings(names) == sorted(names[:13])
