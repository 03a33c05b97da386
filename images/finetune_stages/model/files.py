"""Selection of a model's files in a directory or a repository.

Repositories often have the weights in several formats (PyTorch, ONNX, GGUF): only the safetensors files that transformers opens are
selected.
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
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
CHAT_TEMPLATES = "additional_chat_templates"
"""Folder of a tokenizer's additional chat templates, named as in transformers."""

_SETTINGS = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken", "*.py", "LICENSE*", "NOTICE*", "README.md")
_OTHER_INDEXES = ("*.bin.index.json", "*.index.json")
_OTHER_WEIGHTS = {
    "*.bin": "PyTorch's pickle format (.bin); convert it to safetensors with save_pretrained of transformers",
    "*.pt": "PyTorch's pickle format (.pt); convert it to safetensors with save_pretrained of transformers",
    "*.pth": "PyTorch's pickle format (.pth); convert it to safetensors with save_pretrained of transformers",
    "*.gguf": "GGUF, which cannot be trained; use the original model",
    "*.onnx": "ONNX, which cannot be trained; use the original model",
    "*.h5": "TensorFlow's format (.h5); load the model with transformers 4 (from_tf) and save it with save_pretrained",
    "*.msgpack": "Flax's format (.msgpack); load the model with transformers 4 (from_flax) and save it with save_pretrained",
}


def settings(names: Collection[str]) -> list[str]:
    """Return all files except weights: configuration, tokenizer, chat templates, the model's code and license, the index of shards."""
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


def require_files(names: Collection[str], model: str) -> None:
    """Check that the names can be those of a model as transformers saves it.

    Raises:
        StageError: ``ModelUnsupported``: they are those of an adapter or of a pipeline for images. ``ModelIncomplete``: they are those of a
            model in another format.
    """
    require_no_adapter(names, model)
    if CONFIG in names:
        return
    if "model_index.json" in names:
        raise StageError(
            reasons.MODEL_UNSUPPORTED,
            f"{model}: model_index.json belongs to a pipeline of diffusers, which does not generate text; set model.uri to a decoder-only model"
            " for text generation.",
        )
    if "params.json" in names:
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            f"{model}: config.json is missing, and params.json belongs to the format of Meta and Mistral; use the version of the model that"
            " transformers saved.",
        )
    for pattern, what in _OTHER_WEIGHTS.items():
        if any(fnmatchcase(name, pattern) for name in names):
            raise StageError(reasons.MODEL_INCOMPLETE, f"{model}: config.json is missing, and the weights are in {what}.")


def belongs_to_model(name: str) -> bool:
    """Return whether a file can be a part of the model: a setting, or weights that transformers opens."""
    return bool(settings([name])) or name.endswith(".safetensors")


def weights(names: Collection[str], folder: Path, model: str) -> list[str]:
    """Return the weight files among ``names``; an index of shards is read from ``folder``.

    Raises:
        StageError: ``ModelIncomplete``: there are none, or only in a format that cannot be trained, or a shard is missing.
            ``ModelCorrupt``: the index cannot be read. ``ModelUnsupported``: there is an adapter.
    """
    require_no_adapter(names, model)
    if WEIGHTS in names:  # like transformers, which prefers it to an index
        return [WEIGHTS]
    if INDEX in names:
        shards = sorted(set(weight_map(folder, model).values()))
        missing = [shard for shard in shards if shard not in names]
        if missing:
            raise StageError(
                reasons.MODEL_INCOMPLETE, f"{model}: {_some(missing)} in {INDEX} is missing; download the model again."
            )
        return shards
    for pattern, what in _OTHER_WEIGHTS.items():
        if any(fnmatchcase(name, pattern) for name in names):
            raise StageError(reasons.MODEL_INCOMPLETE, f"{model}: the weights are in {what}.")
    raise StageError(
        reasons.MODEL_INCOMPLETE,
        f"{model}: it has no weights, neither {WEIGHTS} nor {INDEX}; use a model in the safetensors format.",
    )


def weight_map(folder: Path, model: str) -> dict[str, str]:
    """Return the index's mapping of tensor names to shards.

    Raises:
        StageError: ``ModelCorrupt``.
    """
    stated = read_json(folder / INDEX, model).get("weight_map")
    if not isinstance(stated, dict) or not stated or not all(isinstance(shard, str) for shard in stated.values()):
        raise StageError(reasons.MODEL_CORRUPT, f"{model}: {INDEX} has no weight_map; download or save the model again.")
    outside = next((shard for shard in stated.values() if "/" in shard), None)
    if outside:
        raise StageError(
            reasons.MODEL_CORRUPT,
            f"{model}: {INDEX} refers to {outside!r}, which is not a file in the same directory; save the model again.",
        )
    return stated


def read_json(path: Path, model: str) -> dict[str, object]:
    """Return the JSON object in a configuration file.

    Raises:
        StageError: ``ModelCorrupt``, or ``ModelIncomplete``: it is a Git LFS pointer.
    """
    require_no_pointer(path, model)
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise StageError(
            reasons.MODEL_CORRUPT, f"{model}: {path.name} is not JSON ({error}); download or save the model again."
        ) from error
    if not isinstance(value, dict):
        raise StageError(reasons.MODEL_CORRUPT, f"{model}: {path.name} is not a JSON object; download or save the model again.")
    return value


def require_no_adapter(names: Collection[str], model: str) -> None:
    """Check that there is no adapter: transformers silently applies one that it finds in a model's directory.

    Raises:
        StageError: ``ModelUnsupported``.
    """
    if ADAPTER in names:
        raise StageError(
            reasons.MODEL_UNSUPPORTED,
            f"{model}: {ADAPTER} belongs to an adapter such as LoRA, which is not a complete model or modifies the model in the same directory; merge it"
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
            f"{model}: {path.name} is a Git LFS pointer, not the file itself; run git lfs pull in the cloned directory.",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more files" if len(names) > 3 else "")
