"""The engine's packages: asked of their metadata, and the same versions as the project's extra."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from finetune_contract import reasons
from finetune_contract.documents import LoraInputs
from finetune_stages.sdk import StageError
from finetune_stages.training import libraries
from finetune_stages.training.libraries import ADAPTERS, ENGINE, require_engine


def test_this_environment_has_the_engine(inputs):
    for algorithm in ("sft", "osft", "lora"):
        require_engine(inputs(algorithm=algorithm))


def test_the_versions_are_those_of_the_extra():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    wanted = dict(re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in project["optional-dependencies"]["training"])
    assert wanted == {**ENGINE, **ADAPTERS}


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"trl": None}, "requires the Python package trl 1.16 or newer, and quay.io/team/image:1 does not have it"),
        (
            {"transformers": "4.57.6"},
            "requires the Python package transformers 5.23 or newer, and quay.io/team/image:1 has 4.57.6",
        ),
        ({"torch": "2.9.0+cu128"}, "requires the Python package torch 2.13 or newer, and quay.io/team/image:1 has 2.9.0"),
    ],
)
def test_an_absent_or_old_package_is_named_with_the_image(monkeypatch, inputs, found, sentence):
    real = libraries._version
    monkeypatch.setattr(libraries, "_version", lambda package: found[package] if package in found else real(package))
    monkeypatch.setenv("FINETUNE_IMAGE", "quay.io/team/image:1")
    with pytest.raises(StageError, match=re.escape(sentence)) as raised:
        require_engine(inputs())
    assert raised.value.reason is reasons.ENGINE_MISSING


@pytest.mark.parametrize("algorithm", ["osft", "lora"])
def test_sft_does_not_need_peft(monkeypatch, inputs, algorithm):
    real = libraries._version
    monkeypatch.setattr(libraries, "_version", lambda package: None if package == "peft" else real(package))
    require_engine(inputs())
    with pytest.raises(StageError, match="peft"):
        require_engine(inputs(algorithm=algorithm))


def test_quantized_weights_need_a_package_of_their_own(monkeypatch, inputs):
    real = libraries._version
    monkeypatch.setattr(libraries, "_version", lambda package: None if package == "bitsandbytes" else real(package))
    require_engine(inputs(algorithm="lora", lora=LoraInputs(quantization="none")))
    require_engine(inputs(algorithm="sft", lora=LoraInputs(quantization="4bit")))
    with pytest.raises(StageError, match=r"requires the Python package bitsandbytes 0.46.1 or newer") as raised:
        require_engine(inputs(algorithm="lora", lora=LoraInputs(quantization="4bit")))
    assert raised.value.reason is reasons.ENGINE_MISSING
