"""The engine's packages: asked of their metadata, and no newer than what the project installs and what OpenShift AI 3.3 has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from finetune_contract.documents import LoraInputs
from finetune_stages.training import libraries
from finetune_stages.training.libraries import ADAPTERS, ENGINE, missing_package, release

ROOT = Path(__file__).parents[3]


def test_this_environment_has_the_engine(inputs):
    for algorithm in ("sft", "osft", "lora"):
        assert missing_package(inputs(algorithm=algorithm)) is None


def test_the_extra_installs_them():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = dict(re.match(r"([\w-]+)>=([\d.]+)", line).groups() for line in project["optional-dependencies"]["training"])
    assert wanted.keys() == {*ENGINE, *ADAPTERS, "trl"}
    assert all(release(wanted[package]) >= release(oldest) for package, oldest in {**ENGINE, **ADAPTERS}.items())


def test_the_oldest_versions_are_tested():
    """tests/compat trains with the versions of this lock."""
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "hack/compat/openshift-ai-3.3.lock").read_text(), flags=re.MULTILINE))
    for package, oldest in {**ENGINE, **ADAPTERS}.items():
        assert release(pins[package])[: len(release(oldest))] == release(oldest), package


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"accelerate": None}, "requires the Python package accelerate 1.10 or newer, and the image does not have it"),
        ({"transformers": "4.56.2"}, "requires the Python package transformers 4.57.1 or newer, and the image has 4.56.2"),
        ({"torch": "2.8.0+cu128"}, "requires the Python package torch 2.9 or newer, and the image has 2.8.0"),
    ],
)
def test_an_absent_or_old_package_is_named(monkeypatch, inputs, found, sentence):
    real = libraries.version
    monkeypatch.setattr(libraries, "version", lambda package: found[package] if package in found else real(package))
    assert sentence in (missing_package(inputs()) or "")


def test_only_lora_needs_peft(monkeypatch, inputs):
    real = libraries.version
    monkeypatch.setattr(libraries, "version", lambda package: None if package == "peft" else real(package))
    assert missing_package(inputs(algorithm="sft")) is None
    assert missing_package(inputs(algorithm="osft")) is None
    assert "peft" in (missing_package(inputs(algorithm="lora")) or "")


def test_quantized_weights_need_a_package_of_their_own(monkeypatch, inputs):
    real = libraries.version
    monkeypatch.setattr(libraries, "version", lambda package: None if package == "bitsandbytes" else real(package))
    assert missing_package(inputs(algorithm="lora", lora=LoraInputs(quantization="none"))) is None
    assert missing_package(inputs(algorithm="sft", lora=LoraInputs(quantization="4bit"))) is None
    missing = missing_package(inputs(algorithm="lora", lora=LoraInputs(quantization="4bit")))
    assert missing == "it requires the Python package bitsandbytes 0.46.1 or newer, and the image does not have it"
