"""The engine's packages: asked of their metadata, and the same versions as the project's extra."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from finetune_contract.documents import LoraInputs
from finetune_stages.training import libraries
from finetune_stages.training.libraries import ADAPTERS, ENGINE, missing_package


def test_this_environment_has_the_engine(inputs):
    for algorithm in ("sft", "osft", "lora"):
        assert missing_package(inputs(algorithm=algorithm)) is None


def test_the_versions_are_those_of_the_extra():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    wanted = dict(re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in project["optional-dependencies"]["training"])
    assert wanted == {**ENGINE, **ADAPTERS}


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"trl": None}, "requires the Python package trl 1.16 or newer, and the image does not have it"),
        (
            {"transformers": "4.57.6"},
            "requires the Python package transformers 5.23 or newer, and the image has 4.57.6",
        ),
        ({"torch": "2.9.0+cu128"}, "requires the Python package torch 2.13 or newer, and the image has 2.9.0"),
    ],
)
def test_an_absent_or_old_package_is_named(monkeypatch, inputs, found, sentence):
    real = libraries.version
    monkeypatch.setattr(libraries, "version", lambda package: found[package] if package in found else real(package))
    assert sentence in (missing_package(inputs()) or "")


@pytest.mark.parametrize("algorithm", ["osft", "lora"])
def test_sft_does_not_need_peft(monkeypatch, inputs, algorithm):
    real = libraries.version
    monkeypatch.setattr(libraries, "version", lambda package: None if package == "peft" else real(package))
    assert missing_package(inputs()) is None
    assert "peft" in (missing_package(inputs(algorithm=algorithm)) or "")


def test_quantized_weights_need_a_package_of_their_own(monkeypatch, inputs):
    real = libraries.version
    monkeypatch.setattr(libraries, "version", lambda package: None if package == "bitsandbytes" else real(package))
    assert missing_package(inputs(algorithm="lora", lora=LoraInputs(quantization="none"))) is None
    assert missing_package(inputs(algorithm="sft", lora=LoraInputs(quantization="4bit"))) is None
    missing = missing_package(inputs(algorithm="lora", lora=LoraInputs(quantization="4bit")))
    assert missing == "it requires the Python package bitsandbytes 0.46.1 or newer, and the image does not have it"
