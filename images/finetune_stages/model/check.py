"""Whether a directory holds a model that can be trained: no library is needed to know, and no weight is read."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract import reasons
from finetune_stages.kit import StageError

from .files import CHAT_TEMPLATES, INDEX, WEIGHTS, read_json, weight_map, weights

_HEADER_LIMIT = 100_000_000
"""Bytes that a safetensors header may have at most (the format's own bound)."""
_TOKENIZERS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"), ("vocab.txt",))


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself: the number of parameters of each tensor."""

    parameters: dict[str, int]


def check_settings(folder: Path, model: str, trust_remote_code: bool) -> str:
    """Check configuration, tokenizer and chat template; returns the architecture.

    Raises:
        StageError: ``ModelIncomplete``, ``ModelCorrupt``, ``RemoteCode``, ``ChatTemplateMissing``.
    """
    _require(folder, "config.json", model)
    config = read_json(folder / "config.json", model)
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures or not isinstance(architectures[0], str):
        raise StageError(
            reasons.MODEL_INCOMPLETE, f"{model}: config.json names no architecture; use a model saved by transformers."
        )
    _require(folder, "tokenizer_config.json", model)
    tokenizer = read_json(folder / "tokenizer_config.json", model)
    if not trust_remote_code:
        _refuse_code({"config.json": config, "tokenizer_config.json": tokenizer}, model)
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS) and "auto_map" not in tokenizer:
        raise StageError(
            reasons.MODEL_INCOMPLETE, f"{model} has no tokenizer: neither tokenizer.json nor tokenizer.model is there; add it."
        )
    if (folder / "tokenizer.json").is_file():
        read_json(folder / "tokenizer.json", model)
    if not _has_chat_template(folder, tokenizer):
        raise StageError(
            reasons.CHAT_TEMPLATE_MISSING,
            f"{model} has no chat template (neither chat_template.jinja nor one in tokenizer_config.json); use its chat or instruct"
            " variant, or add one.",
        )
    return architectures[0]


def check_weights(folder: Path, model: str) -> int:
    """Check that every weight file is whole and every tensor of the index in its shard; returns the number of parameters.

    Raises:
        StageError: ``ModelIncomplete``, ``ModelCorrupt``.
    """
    names = weights([path.name for path in folder.iterdir()], folder, model)
    headers = {name: read_header(folder / name, model) for name in names}
    if names != [WEIGHTS]:
        for tensor, shard in weight_map(folder, model).items():
            if tensor not in headers[shard].parameters:
                raise StageError(
                    reasons.MODEL_CORRUPT,
                    f"{model}: {shard} lacks {tensor}, which {INDEX} puts there; fetch or save the model again.",
                )
    total = sum(sum(header.parameters.values()) for header in headers.values())
    if not total:
        raise StageError(reasons.MODEL_CORRUPT, f"{model} has no parameters: its weight files hold no tensor.")
    return total


def read_header(path: Path, model: str) -> Header:
    """The header of a safetensors file: 8 bytes with its length (little endian), then JSON; the tensors' bytes follow.

    Source: https://github.com/huggingface/safetensors#format. The file's size must be what the header claims.

    Raises:
        StageError: ``ModelCorrupt``.
    """
    size = path.stat().st_size
    try:
        length, stated = _read_stated(path, size)
        parameters = {name: math.prod(entry["shape"]) for name, entry in stated.items()}
        expected = 8 + length + max((entry["data_offsets"][1] for entry in stated.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
        raise _corrupt(path, model, f"it is no safetensors file ({error})") from error
    if size != expected:
        raise _corrupt(path, model, f"it has {size:,} bytes and its header claims {expected:,}")
    return Header(parameters)


def _read_stated(path: Path, size: int) -> tuple[int, dict[str, Any]]:
    """The header's length in bytes, and what it states of each tensor."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > min(size - 8, _HEADER_LIMIT):
            raise ValueError(f"its header claims {length:,} bytes")
        stated: dict[str, Any] = json.loads(stream.read(length))
    stated.pop("__metadata__", None)
    return length, stated


def _corrupt(path: Path, model: str, detail: str) -> StageError:
    return StageError(reasons.MODEL_CORRUPT, f"{model}: {path.name} is damaged: {detail}; fetch or save the model again.")


def _require(folder: Path, name: str, model: str) -> None:
    if not (folder / name).is_file():
        raise StageError(reasons.MODEL_INCOMPLETE, f"{model} lacks {name}; use a model saved by transformers.")


def _refuse_code(files: dict[str, dict[str, object]], model: str) -> None:
    for name, content in files.items():
        if content.get("auto_map"):
            raise StageError(
                reasons.REMOTE_CODE,
                f"{model} brings Python code of its own (auto_map in {name}); set model.trustRemoteCode to true if you trust it.",
            )


def _has_chat_template(folder: Path, tokenizer: dict[str, object]) -> bool:
    stated = tokenizer.get("chat_template")
    if isinstance(stated, list):  # several by name, in files of transformers before 4.51
        stated = next((entry.get("template") for entry in stated if isinstance(entry, dict)), None)
    if isinstance(stated, str) and stated.strip():
        return True
    files = [folder / "chat_template.jinja", *(folder / CHAT_TEMPLATES).glob("*.jinja")]
    return any(file.is_file() and file.stat().st_size > 0 for file in files)
