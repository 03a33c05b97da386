"""Which files of a directory or a repository make up a model: the same selection for both.

Repositories often hold the weights several times over (PyTorch, ONNX, GGUF, the author's own format): one set is taken, that
of safetensors files which transformers opens.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sources.lfs import is_pointer_file

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
CHAT_TEMPLATES = "additional_chat_templates"
"""The folder of a tokenizer's further chat templates (transformers' name)."""

_SETTINGS = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py", "LICENSE*", "NOTICE*", "README.md")
_OTHER_INDEXES = ("*.bin.index.json", "*.index.json")
_OTHER_WEIGHTS = {
    "*.bin": "PyTorch's pickle format (.bin); convert it to safetensors with save_pretrained of transformers",
    "*.pt": "PyTorch's pickle format (.pt); convert it to safetensors with save_pretrained of transformers",
    "*.pth": "PyTorch's pickle format (.pth); convert it to safetensors with save_pretrained of transformers",
    "*.gguf": "GGUF, which cannot be trained; use the model that it was made from",
    "*.onnx": "ONNX, which cannot be trained; use the model that it was made from",
}


def settings(names: Collection[str]) -> list[str]:
    """Return everything but weights: configuration, tokenizer, chat templates, the model's code and license, the index of shards in use."""
    chosen = []
    for name in names:
        folder, _, base = name.rpartition("/")
        if (name == INDEX and WEIGHTS not in names) or (
            folder in ("", CHAT_TEMPLATES)
            and any(fnmatchcase(base, pattern) for pattern in _SETTINGS)
            and not any(fnmatchcase(base, pattern) for pattern in _OTHER_INDEXES)
        ):
            chosen.append(name)
    return sorted(chosen)


def weights(names: Collection[str], folder: Path, model: str) -> list[str]:
    """Return the weight files among ``names``; the index of shards, where there is one, is read from ``folder``.

    Raises:
        StageError: ``ModelIncomplete``: there are none, or only in a form that cannot be trained, or a shard is missing.
            ``ModelCorrupt``: the index cannot be read. ``ModelUnsupported``: there is an adapter.
    """
    require_no_adapter(names, model)
    if WEIGHTS in names:  # as transformers: before an index
        return [WEIGHTS]
    if INDEX in names:
        shards = sorted(set(weight_map(folder, model).values()))
        missing = [shard for shard in shards if shard not in names]
        if missing:
            raise StageError(
                reasons.MODEL_INCOMPLETE, f"{model} lacks {_some(missing)}, which {INDEX} names; fetch the model again."
            )
        return shards
    for pattern, what in _OTHER_WEIGHTS.items():
        if any(fnmatchcase(name, pattern) for name in names):
            raise StageError(reasons.MODEL_INCOMPLETE, f"{model} has its weights only as {what}.")
    raise StageError(reasons.MODEL_INCOMPLETE, f"{model} has no weights: neither {WEIGHTS} nor {INDEX} is there.")


def weight_map(folder: Path, model: str) -> dict[str, str]:
    """Tensor name to shard, as the index states it.

    Raises:
        StageError: ``ModelCorrupt``.
    """
    stated = read_json(folder / INDEX, model).get("weight_map")
    if not isinstance(stated, dict) or not stated or not all(isinstance(shard, str) for shard in stated.values()):
        raise StageError(reasons.MODEL_CORRUPT, f"{model}: {INDEX} has no weight_map; fetch or save the model again.")
    outside = next((shard for shard in stated.values() if "/" in shard), None)
    if outside:
        raise StageError(reasons.MODEL_CORRUPT, f"{model}: {INDEX} names {outside!r}, which is no file beside it.")
    return stated


def read_json(path: Path, model: str) -> dict[str, object]:
    """Return a settings file with a JSON object.

    Raises:
        StageError: ``ModelCorrupt``, or ``ModelIncomplete``: it is a Git LFS pointer.
    """
    require_no_pointer(path, model)
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise StageError(
            reasons.MODEL_CORRUPT, f"{model}: {path.name} is not JSON ({error}); fetch or save the model again."
        ) from error
    if not isinstance(value, dict):
        raise StageError(reasons.MODEL_CORRUPT, f"{model}: {path.name} holds no JSON object; fetch or save the model again.")
    return value


def require_no_adapter(names: Collection[str], model: str) -> None:
    """Check that there is no adapter: transformers puts one that is in a model's directory on the model, without a word.

    Raises:
        StageError: ``ModelUnsupported``.
    """
    if ADAPTER in names:
        raise StageError(
            reasons.MODEL_UNSUPPORTED,
            f"{model}: {ADAPTER} belongs to an adapter (LoRA or the like), which is no whole model, or changes the one beside it; merge it"
            " into its base model (merge_and_unload) and use a directory without the adapter's files.",
        )


def require_no_pointer(path: Path, model: str) -> None:
    """Check that ``path`` is not a Git LFS pointer.

    Raises:
        StageError: ``ModelIncomplete``.
    """
    if is_pointer_file(path):
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            f"{model}: {path.name} is a Git LFS pointer, not the file itself; run git lfs pull in the directory that you cloned.",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more files" if len(names) > 3 else "")
