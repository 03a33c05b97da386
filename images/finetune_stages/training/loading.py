"""The base model's tokenizer and weights as transformers loads them, and its complaints as sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from finetune_contract import reasons
from finetune_stages.kit import StageError

logging.disable_progress_bar()


def load_tokenizer(directory: Path, trust_remote_code: bool) -> Any:
    """The tokenizer of a model directory.

    Raises:
        StageError: ``ModelCorrupt``, ``RemoteCode``, or ``ModelIncomplete``: it cannot say where in a text its tokens stand.
    """
    with _as_sentences(directory):
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
    if not tokenizer.is_fast:
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            "The base model's tokenizer has no tokenizer.json, without which no token can be traced to its place in the text: use a"
            " model that has one.",
        )
    return tokenizer


def load_model(
    directory: Path, trust_remote_code: bool, gpu: int | None, dtype: torch.dtype = torch.float32, quantisation: Any = None
) -> tuple[Any, set[str]]:
    """The model, on this GPU where there are any, and the names in its files that its class does not read.

    It goes straight onto the GPU (``None``: into ordinary memory), because as many copies as there are processes may be more than
    the machine's own memory holds. ``dtype`` is that of the weights which ``quantisation``, transformers' configuration, leaves.

    Raises:
        StageError: ``ModelCorrupt``, ``RemoteCode``, or ``ModelIncomplete``: weights are missing.
    """
    device_map = {"": gpu} if gpu is not None and torch.cuda.is_available() else None
    with _as_sentences(directory):
        model, report = AutoModelForCausalLM.from_pretrained(
            directory, dtype=dtype, device_map=device_map, quantization_config=quantisation, output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )  # fmt: skip
    if report["missing_keys"]:
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            f"The base model has no weights for {', '.join(sorted(report['missing_keys'])[:3])}: use a model for text generation, with"
            " all its files.",
        )
    return model, set(report["unexpected_keys"])


@contextmanager
def _as_sentences(directory: Path) -> Iterator[None]:
    """Whatever goes wrong in there is the directory's fault, memory aside."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # each of the libraries below it has errors of its own
        why = " ".join(str(error).split()) or type(error).__name__
        if "out of memory" in why.lower():
            raise
        if "trust_remote_code" in why:
            raise StageError(
                reasons.REMOTE_CODE,
                "The base model brings Python code of its own: set model.trustRemoteCode to true if you trust its author.",
            ) from error
        raise StageError(
            reasons.MODEL_CORRUPT, f"{directory.name} cannot be loaded ({why[:300].rstrip('.')}): use another model or image."
        ) from error
