"""Packages of the portable engine, checked by their metadata without importing large libraries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import metadata

from finetune_contract.documents import TrainingInputs

from .quantization import quantization

ENGINE = {"torch": "2.9", "transformers": "4.57.1", "accelerate": "1.10", "datasets": "4.3"}
"""Packages of the portable engine with their oldest versions that ``tests/compat`` tests; those of OpenShift AI 3.3."""
ADAPTERS = {"peft": "0.17"}
"""Additional packages for the algorithm ``lora``."""
FUSED_LOSS = "1.16"
"""First version of TRL with a fused loss; with older ones, or without TRL, the trainer builds the logits of the labels."""
QUANTIZED = {"bitsandbytes": "0.46.1"}
"""Additional packages for ``lora`` with 4-bit or 8-bit weights; images for CPUs lack them."""


def missing_package(inputs: TrainingInputs) -> str | None:
    """Return what this image lacks for the portable engine: the first package that is missing or too old, as a clause."""
    return lacking_package({
        **ENGINE, **(ADAPTERS if inputs.algorithm == "lora" else {}), **(QUANTIZED if quantization(inputs) else {}),
    })  # fmt: skip


def lacking_package(needed: Mapping[str, str]) -> str | None:
    """Return the first package that is missing or older than needed, as a clause about an engine. ``needed`` has the oldest versions."""
    for package, oldest in needed.items():
        found = version(package)
        if found is None or release(found) < release(oldest):
            has = "the image does not have it" if found is None else f"the image has {found}"
            return f"it requires the Python package {package} {oldest} or newer, and {has}"
    return None


def engine_versions() -> dict[str, str]:
    """Return the versions of the engine's packages that are installed."""
    found = {package: version(package) for package in (*ENGINE, "trl", *ADAPTERS)}
    return {package: number for package, number in found.items() if number is not None}


def has_fused_loss() -> bool:
    """Return whether TRL has a fused output layer and loss for GPUs."""
    found = version("trl")
    return found is not None and release(found) >= release(FUSED_LOSS)


def version(package: str) -> str | None:
    """Return the version of an installed package, ``None`` if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def release(version: str) -> tuple[int, ...]:
    """Return the release number of a version: ``2.15.0+cu132`` -> (2, 15, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
