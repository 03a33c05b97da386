"""Loading of tokenizers, and stage errors for exceptions of libraries that read a model directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from finetune_contract import reasons

from .fault import StageError


@contextmanager
def loading() -> Iterator[None]:
    """Raise every exception inside as a fault of the model's files, except out-of-memory errors.

    Raises:
        StageError: ``ModelCorrupt``, ``RemoteCode``, ``EngineMissing``.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # each library has its own exceptions
        why = " ".join(str(error).split()) or type(error).__name__
        if "out of memory" in why.lower():
            raise
        if "trust_remote_code" in why:
            raise StageError(
                reasons.REMOTE_CODE,
                "model.trustRemoteCode: the base model contains Python code; set it to true if you trust its author.",
            ) from error
        if "does not recognize this architecture" in why or "Unrecognized model" in why:
            raise StageError(
                reasons.ENGINE_MISSING,
                f"model.uri: transformers {version('transformers')} of the image does not know the architecture of the model"
                f" ({why[:100].rstrip('.')}); use an image with a newer version, or another model.",
            ) from error
        raise StageError(
            reasons.MODEL_CORRUPT,
            f"model.uri: the model cannot be loaded ({why[:300].rstrip('.')}); save it again or set another model.",
        ) from error


def load_tokenizer(directory: Path, trust_remote_code: bool = False) -> Any:
    """Return the tokenizer of a model directory. It imports transformers.

    Raises:
        StageError: ``ModelCorrupt``, ``RemoteCode``, or ``ModelIncomplete``: the tokenizer does not report character offsets.
    """
    from transformers import AutoTokenizer

    with loading():
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
    require_fast(tokenizer)
    return tokenizer


def require_known(directory: Path, config: Mapping[str, Any]) -> None:
    """Check that the installed transformers reads the configuration of a model. A model with its own code is not checked.

    Raises:
        StageError: ``EngineMissing``: it does not know the model type. ``ModelCorrupt``: a value is invalid.
    """
    from transformers import AutoConfig

    if not config.get("auto_map"):
        with loading():
            AutoConfig.from_pretrained(directory)


def require_fast(tokenizer: object) -> None:
    """Check that a tokenizer reports the character offsets of its tokens.

    Raises:
        StageError: ``ModelIncomplete``.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            "model.uri: the tokenizer has no tokenizer.json, which is required to locate tokens in the text; set a model"
            " that has one.",
        )
