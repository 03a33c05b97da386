"""Whether the engine is installed, told from the packages' metadata: in milliseconds, without importing anything large."""

from __future__ import annotations

import os
import re
from importlib import metadata

from finetune_contract import reasons
from finetune_contract.documents import IMAGE_VARIABLE, TrainingInputs
from finetune_stages.sdk import StageError

from .quantisation import quantisation

ENGINE = {"torch": "2.13", "transformers": "5.23", "accelerate": "1.15", "datasets": "5", "trl": "1.16"}
"""Packages of the portable engine and the oldest versions that it was written for (the extra ``training`` says the same)."""
ADAPTERS = {"peft": "0.21"}
"""What the algorithms ``osft`` and ``lora`` need beyond that."""
QUANTISED = {"bitsandbytes": "0.46.1"}
"""What ``lora`` needs for weights of 4 or 8 bits; an image for CPUs goes without."""


def require_engine(inputs: TrainingInputs) -> None:
    """Check that this image can train so.

    Raises:
        StageError: ``EngineMissing``: a package is absent or too old.
    """
    needed = {
        **ENGINE, **(ADAPTERS if inputs.algorithm in ("osft", "lora") else {}), **(QUANTISED if quantisation(inputs) else {}),
    }  # fmt: skip
    for package, oldest in needed.items():
        found = _version(package)
        if found is None or _numbers(found) < _numbers(oldest):
            image = os.environ.get(IMAGE_VARIABLE) or "the training image"
            has = "does not have it" if found is None else f"has {found}"
            raise StageError(
                reasons.ENGINE_MISSING,
                f"The portable engine needs the Python package {package} {oldest} or newer, and {image} {has}.",
            )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the release number of a version: ``2.15.0+cu132`` -> (2, 15, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
