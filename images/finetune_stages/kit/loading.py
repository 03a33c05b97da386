"""Errors of libraries that read a model directory, as sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_contract import reasons

from .fault import StageError


@contextmanager
def loading(directory: Path) -> Iterator[None]:
    """Take every exception inside for a fault of ``directory``, except those of memory.

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
                "The base model brings Python code of its own: set model.trustRemoteCode to true if you trust its author.",
            ) from error
        raise StageError(
            reasons.MODEL_CORRUPT, f"{directory.name} cannot be loaded ({why[:300].rstrip('.')}): use another model or image."
        ) from error


def require_fast(tokenizer: object) -> None:
    """Make sure that a tokenizer knows where in a text its tokens are.

    Raises:
        StageError: ``ModelIncomplete``.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            "The base model's tokenizer has no tokenizer.json, without which no token can be traced to its place in the text: use a"
            " model that has one.",
        )
