"""Files of a model directory in the Hugging Face layout: names and sizes of the weights, and the other files.

The files are read without any library, so that a wrong model fails before slow imports.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune_contract import reasons
from finetune_contract.workspace import SENTINEL
from finetune_stages.sdk import StageError
from finetune_stages.sdk.model_config import number, quantization
from finetune_stages.sdk.safetensors_header import FLOATS, Tensor, is_quantized, read_header

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_PART = 1 << 24
"""Bytes of a tensor that are compared at once."""
_TIED = "tie_word_embeddings"
_COPIED = {".json", ".jinja", ".txt", ".model", ".tiktoken", ".py"}
_LICENSES = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")


@dataclass(frozen=True)
class Pretrained:
    """A model directory: its configuration and the header of every weight."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    @classmethod
    def open(cls, path: Path) -> Pretrained:
        """Read the configuration and the headers.

        Raises:
            StageError: ``ModelIncomplete``: a file is missing. ``ModelCorrupt``: a file is damaged. ``ModelUnsupported``: the
                weights are quantized.
        """
        config = _read_json(path / CONFIG)
        tensors = read_tensors(path)
        unusual = sorted({tensor.dtype for name, tensor in tensors.items() if is_quantized(name, tensor)})
        stated = quantization(config)
        if unusual or stated:
            how = ", ".join(unusual) or f"config.json states {stated}"
            raise StageError(
                reasons.MODEL_UNSUPPORTED,
                f"model.uri: the weights are quantized ({how}), and such weights cannot be trained; set the original,"
                " unquantized model.",
            )
        return cls(path, config, tensors)

    @cached_property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(tensor.parameters for tensor in self.tensors.values())

    @cached_property
    def size(self) -> int:
        """Size of all weights in bytes."""
        return sum(tensor.size for tensor in self.tensors.values())

    @cached_property
    def dtype(self) -> str:
        """Dtype of most of the weights."""
        counts: Counter[str] = Counter()
        for tensor in self.tensors.values():
            if tensor.dtype in FLOATS:
                counts[tensor.dtype] += tensor.parameters
        return counts.most_common(1)[0][0] if counts else "F32"

    def text_config(self, name: str, default: int) -> int:
        """Return a number of the language model's configuration."""
        stated = number(self.config, name)
        return default if stated is None else stated

    def copy_companions(self, target: Path, own_head: bool = False) -> None:
        """Copy all files except weights to ``target``: tokenizer, chat template, configuration, code and license of the model.

        They are copied unchanged: training does not affect them, and a server of the base model must be able to read the fine-tuned one
        with any version of transformers. The exception is a model with a separate output layer (``own_head``) whose configuration ties
        it to the embeddings: programs disagree about such models, so the fine-tuned model's configuration is corrected.
        """
        for file in sorted(self.path.iterdir()):
            is_copied = file.suffix in _COPIED or file.name.upper().startswith(_LICENSES)
            if file.is_file() and is_copied and file.name != SENTINEL and not file.name.endswith(".index.json"):
                shutil.copyfile(file, target / file.name)
        templates = self.path / "additional_chat_templates"
        if templates.is_dir():
            shutil.copytree(templates, target / templates.name, copy_function=shutil.copyfile, dirs_exist_ok=True)
        config = {**(_untied(self.config) if own_head else self.config), "use_cache": True}
        (target / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def _untied(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration with untied embeddings; multimodal models state it one level down, too."""
    inner = config.get("text_config")
    nested = {"text_config": {**inner, _TIED: False}} if isinstance(inner, dict) and _TIED in inner else {}
    return {**config, **nested, _TIED: False}


def unread(names: Collection[str]) -> tuple[str, ...]:
    """Return a warning about tensors that the model's class does not read and that the fine-tuned model lacks."""
    if not names:
        return ()
    first = min(names)
    which = first if len(names) == 1 else f"{first} and {len(names) - 1:,} more tensors"
    return (f"model.uri: the model's class does not read {which}, so the fine-tuned model has none of these values.",)


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """Return the headers of all weights of a model directory by name.

    Raises:
        StageError: ``ModelIncomplete``, ``ModelCorrupt``.
    """
    return {name: tensor for file in weight_files(directory) for name, tensor in read_header(file, directory.name).items()}


def has_other_weights(base: Path, directory: Path) -> bool:
    """Return whether a tensor of a model directory has other bytes than the tensor of that name in ``base``."""
    known = {name: (file, tensor) for file in weight_files(base) for name, tensor in read_header(file, base.name).items()}
    for file in weight_files(directory):
        for name, tensor in read_header(file, directory.name).items():
            if name in known and not _equal_bytes(known[name], (file, tensor)):
                return True
    return False


def _equal_bytes(one: tuple[Path, Tensor], other: tuple[Path, Tensor]) -> bool:
    """Return whether two tensors have the same bytes; they are read in parts."""
    if one[1].size != other[1].size:
        return False
    with one[0].open("rb") as first, other[0].open("rb") as second:
        first.seek(one[1].begin)
        second.seek(other[1].begin)
        for start in range(0, one[1].size, _PART):
            length = min(_PART, one[1].size - start)
            if first.read(length) != second.read(length):
                return False
    return True


def weight_files(path: Path) -> list[Path]:
    """Return a model's weight files: those that transformers opens, a single file before an index.

    Raises:
        StageError: ``ModelIncomplete``: there are none, or one of several is missing.
    """
    index = path / INDEX
    sharded = index.is_file() and not (path / WEIGHTS).is_file()
    names = [WEIGHTS]
    if sharded:
        weight_map = _read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise _corrupt(index, "its weight_map does not map names to files")
        names = sorted(set(weight_map.values()))
    missing = [name for name in names if not (path / name).is_file()]
    if missing or not names:
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            f"{path.name}: it has no {', '.join(missing[:3]) or 'weights'}; use a model in the safetensors format with all its files.",
        )
    return [path / name for name in names]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            f"{file.parent.name}: {file.name} is missing; use a model directory in the Hugging Face layout.",
        ) from None
    except (OSError, ValueError) as error:
        raise _corrupt(file, str(error)) from error
    if not isinstance(data, dict):
        raise _corrupt(file, "it is not a JSON object")
    return data


def _corrupt(file: Path, why: str) -> StageError:
    return StageError(reasons.MODEL_CORRUPT, f"{file.parent.name}/{file.name}: {why}; download the model again.")
