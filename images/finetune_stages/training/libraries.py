"""Check that the engine is installed, from the packages' metadata, without importing large libraries."""

from __future__ import annotations

import os
import re
from importlib import metadata

from finetune_contract import reasons
from finetune_contract.documents import IMAGE_VARIABLE, TrainingInputs
from finetune_stages.sdk import StageError

from .quantization import quantization

ENGINE = {"torch": "2.9", "transformers": "4.57.1", "accelerate": "1.10", "datasets": "4.3"}
"""Packages of the portable engine with their oldest versions that ``tests/compat`` tests; those of OpenShift AI 3.3."""
ADAPTERS = {"peft": "0.17"}
"""Additional packages for the algorithm ``lora``."""
FUSED_LOSS = "1.16"
"""First version of TRL with a fused loss; with older ones, or without TRL, the trainer builds the logits of the labels."""
QUANTISED = {"bitsandbytes": "0.46.1"}
"""Additional packages for ``lora`` with 4-bit or 8-bit weights; images for CPUs lack them."""


def require_engine(inputs: TrainingInputs) -> None:
    """Check that this image has the packages for these inputs.

    Raises:
        StageError: ``EngineMissing``: a package is missing or too old.
    """
    needed = {
        **ENGINE, **(ADAPTERS if inputs.algorithm == "lora" else {}), **(QUANTISED if quantization(inputs) else {}),
    }  # fmt: skip
    for package, oldest in needed.items():
        found = _version(package)
        if found is None or _numbers(found) < _numbers(oldest):
            image = os.environ.get(IMAGE_VARIABLE) or "the training image"
            has = "does not have it" if found is None else f"has {found}"
            raise StageError(
                reasons.ENGINE_MISSING,
                f"training.image: the portable engine requires the Python package {package} {oldest} or newer, and {image} {has}; use another image.",
            )


def has_fused_loss() -> bool:
    """Return whether TRL has a fused output layer and loss for GPUs."""
    found = _version("trl")
    return found is not None and _numbers(found) >= _numbers(FUSED_LOSS)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the release number of a version: ``2.15.0+cu132`` -> (2, 15, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
