"""Infinite and undefined numbers in weights are found at any place, and nothing else is."""

from __future__ import annotations

import random
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from finetune_stages.model.headers import read_header
from finetune_stages.model.numbers import FiniteWeights, WeightReaders, has_not_finite
from finetune_stages.sdk import read_seal, seal_directory
from finetune_stages.sdk.workspace import file_sha256

TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def data(values: torch.Tensor) -> bytes:
    return values.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("name", TYPES)
def test_every_number_of_16_bits_and_the_largest_of_others(name):
    kind = TYPES[name]
    if kind.itemsize == 2:
        numbers = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(kind)
    else:
        info = torch.finfo(kind)
        numbers = torch.tensor(
            [0.0, -0.0, info.max, -info.max, info.tiny, 1e-40, 3.4e38, float("nan"), float("inf"), -float("inf")], dtype=kind
        )
    for number, finite in zip(numbers[:, None], torch.isfinite(numbers), strict=True):
        assert has_not_finite(data(number), name) is not bool(finite)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("piece", [1, 3, 64, 1000])
def test_found_in_pieces_of_any_size(name, piece, tmp_path):
    path, kind = tmp_path / "x.safetensors", TYPES[name]
    generator = random.Random(piece)
    for place in (None, 0, 54, generator.randrange(55)):
        tensors = {
            "count": torch.full((7,), -1, dtype=torch.uint8).view(torch.uint8), "first": torch.randn(5, 11).to(kind),
            "masked_bias": torch.tensor(float("-inf")), "second": torch.randn(5, 11).to(kind), "third": torch.randn(3),
        }  # fmt: skip
        if place is not None:
            tensors["second"].view(-1)[place] = float("nan")
        save_file(tensors, path)
        reader = FiniteWeights.of(read_header(path, "m"))
        content = path.read_bytes()
        for start in range(0, len(content), piece):
            reader(content[start : start + piece])
        assert reader.found == (None if place is None else "second")


def test_the_digest_is_the_same_with_a_reader(model):
    readers = WeightReaders("m")
    for name in ("model.safetensors", "config.json"):
        assert file_sha256(model / name, readers=readers) == file_sha256(model / name)
    readers.require_finite()


def test_a_file_without_a_header_is_left_to_its_digest(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nothing of the kind")
    assert WeightReaders("m")(tmp_path / "x.safetensors") is None


def poisoned(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


WORDS = "model.norm.weight in model.safetensors has infinite or undefined numbers; save the model again with finite weights."


def test_a_directory_with_an_undefined_number(stage, model):
    poisoned(model)
    ended = stage(model)
    assert (ended.code, ended.reason) == (65, "ModelCorrupt")
    assert ended.result.message == f"{model}: {WORDS}"


def test_a_repository_with_an_undefined_number_and_the_cache_of_an_earlier_release(stage, hub, model, run_stage_program):
    hub.add("model", "org/tiny", model)
    assert stage("org/tiny").code == 0
    entry = stage.linked()
    poisoned(model)
    hub.add("model", "org/tiny", model)
    ended = stage("org/tiny", attempt="2.1")
    assert (ended.code, ended.reason, ended.result.message) == (65, "ModelCorrupt", f"org/tiny: {WORDS}")
    (entry / "model.safetensors").unlink()
    shutil.copyfile(model / "model.safetensors", entry / "model.safetensors")
    seal = read_seal(entry)
    seal_directory(entry, seal.note)
    revision = seal.note["commit"]
    stage.as_another_run()
    ended = stage("org/tiny", revision=revision)
    assert (ended.code, ended.reason, ended.result.message) == (65, "ModelCorrupt", f"org/tiny: {WORDS}")
