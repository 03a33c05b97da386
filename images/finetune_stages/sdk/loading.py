"""The tokenizer of a model directory, and errors of libraries that read such a directory as sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finetune_contract import reasons

from .fault import StageError


@contextmanager
def loading() -> Iterator[None]:
    """Take every exception inside for a fault of the model's files, except those of memory.

    Raises:
        StageError: ``ModelCorrupt``, ``RemoteCode``.
    """
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
                "model.trustRemoteCode: the base model brings Python code of its own; set it to true if you trust its author.",
            ) from error
        raise StageError(
            reasons.MODEL_CORRUPT,
            f"model.uri: the model cannot be loaded ({why[:300].rstrip('.')}); save it again or set another model.",
        ) from error


def load_tokenizer(directory: Path, trust_remote_code: bool = False) -> Any:
    """Return the tokenizer of a model directory. Importing transformers is left to this function.

    Raises:
        StageError: ``ModelCorrupt``, ``RemoteCode``, or ``ModelIncomplete``: it cannot tell where in a text its tokens are.
    """
    from transformers import AutoTokenizer

    with loading():
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
    require_fast(tokenizer)
    return tokenizer


def require_fast(tokenizer: object) -> None:
    """Check that a tokenizer knows where in a text its tokens are.

    Raises:
        StageError: ``ModelIncomplete``.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            "model.uri: the tokenizer has no tokenizer.json, without which no token can be traced to its place in the text; set a model"
            " that has one.",
        )
