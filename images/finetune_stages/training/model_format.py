"""Models in a format that the installed transformers misreads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from finetune_contract import reasons
from finetune_contract.documents import IMAGE_VARIABLE
from finetune_stages.sdk import StageError
from finetune_stages.sdk.model_config import text_config

from .libraries import release, version
from .pretrained import Pretrained


def require_readable(base: Pretrained, transformers: str | None = None) -> None:
    """Check that the installed transformers reads the files of the base model as the version that wrote them.

    transformers 5 writes ``rope_parameters``, which 4.57 ignores without a message: it would train with other rotary frequencies. Its
    name of a tokenizer's class is unknown to 4.57.

    Args:
        base: the base model.
        transformers: version; the installed one by default.

    Raises:
        StageError: ``EngineMissing``.
    """
    transformers = transformers or version("transformers")
    if transformers is None or release(transformers) >= (5,):
        return
    for found in _of_release_5(base):
        image = os.environ.get(IMAGE_VARIABLE) or "the training image"
        raise StageError(
            reasons.ENGINE_MISSING,
            f"training.image: the base model was saved with transformers 5 ({found}), and transformers {transformers} of {image} misreads it;"
            " use an image with transformers 5, or save the model with transformers 4.",
        )


def _of_release_5(base: Pretrained) -> Iterator[str]:
    if _has_newer_rope(text_config(base.config)):
        yield "config.json has rope_parameters"
    try:
        tokenizer = json.loads((base.path / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):  # loading the tokenizer reports it
        return
    if isinstance(tokenizer, dict) and tokenizer.get("tokenizer_class") == "TokenizersBackend":
        yield "tokenizer_config.json has the class TokenizersBackend"
    if isinstance(tokenizer, dict) and isinstance(tokenizer.get("extra_special_tokens"), list):
        yield "tokenizer_config.json has a list of extra_special_tokens"


def _has_newer_rope(config: Mapping[str, Any]) -> bool:
    """Return whether a configuration has rotary frequencies only in ``rope_parameters``, and not also in the fields of transformers 4."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict) or not rope:
        return False
    theta = config.get("rope_theta")
    by_layer = [values for values in rope.values() if isinstance(values, dict)]  # for each type of attention layers
    scaled = any(values.get("rope_type", "default") != "default" for values in (rope, *by_layer))
    return theta is None or rope.get("rope_theta", theta) != theta or (scaled and not config.get("rope_scaling"))
