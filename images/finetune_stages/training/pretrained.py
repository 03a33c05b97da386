"""A model directory in the Hugging Face layout, as files: what its weights are called, how large they are, what is beside them.

Read without any library, so that a wrong model is refused before seconds are spent on imports.
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
from finetune_stages.sdk.safetensors_header import BYTES, Tensor, read_header

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_TIED = "tie_word_embeddings"
_TRAINABLE = ("F64", "F32", "BF16", "F16")
_COPIED = {".json", ".jinja", ".txt", ".model", ".tiktoken", ".py"}
_LICENCES = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")


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
                weights are quantized, so that no gradient leads to them.
        """
        config = _read_json(path / CONFIG)
        tensors = read_tensors(path)
        unusual = sorted({tensor.dtype for tensor in tensors.values() if tensor.dtype not in BYTES})
        stated = quantization(config)
        if unusual or stated:
            how = ", ".join(unusual) or f"config.json states {stated}"
            raise StageError(
                reasons.MODEL_UNSUPPORTED,
                f"model.uri: the weights are quantized ({how}), and no gradient leads to such weights; name the unquantized model that they"
                " were made from.",
            )
        return cls(path, config, tensors)

    @cached_property
    def parameters(self) -> int:
        """Numbers in all weights."""
        return sum(tensor.parameters for tensor in self.tensors.values())

    @cached_property
    def size(self) -> int:
        """Bytes of all weights."""
        return sum(tensor.size for tensor in self.tensors.values())

    @cached_property
    def dtype(self) -> str:
        """The dtype that most of the weights have."""
        counts: Counter[str] = Counter()
        for tensor in self.tensors.values():
            if tensor.dtype in _TRAINABLE:
                counts[tensor.dtype] += tensor.parameters
        return counts.most_common(1)[0][0] if counts else "F32"

    def text_config(self, name: str, default: int) -> int:
        """Return a number of the language model's configuration."""
        stated = number(self.config, name)
        return default if stated is None else stated

    def copy_companions(self, target: Path, own_head: bool = False) -> None:
        """Everything but the weights into ``target``: tokenizer, chat template, configuration, code and licence of the model.

        They are copied and not written anew: training changes none of them, and what serves the base model must be able to
        read the tuned one, whichever version of transformers it has. The exception is a model whose files hold an output layer of
        its own (``own_head``) and whose configuration says otherwise: some programs read the files then, and others the
        configuration. The tuned model's configuration says what its files hold.
        """
        for file in sorted(self.path.iterdir()):
            wanted = file.suffix in _COPIED or file.name.upper().startswith(_LICENCES)
            if file.is_file() and wanted and file.name != SENTINEL and not file.name.endswith(".index.json"):
                shutil.copyfile(file, target / file.name)
        templates = self.path / "additional_chat_templates"
        if templates.is_dir():
            shutil.copytree(templates, target / templates.name, copy_function=shutil.copyfile, dirs_exist_ok=True)
        config = {**(_untied(self.config) if own_head else self.config), "use_cache": True}
        (target / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def _untied(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a model with an output layer of its own; multimodal models state it one level down, too."""
    inner = config.get("text_config")
    nested = {"text_config": {**inner, _TIED: False}} if isinstance(inner, dict) and _TIED in inner else {}
    return {**config, **nested, _TIED: False}


def unread(names: Collection[str]) -> tuple[str, ...]:
    """Return what the user must know of tensors that the model's class does not read: the tuned model has none of them."""
    if not names:
        return ()
    first = min(names)
    which = first if len(names) == 1 else f"{first} and {len(names) - 1:,} more tensors"
    return (f"model.uri: the model's class does not read {which}; what they hold is neither trained nor in the tuned model.",)


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """Return the headers of all weights of a model directory by name.

    Raises:
        StageError: ``ModelIncomplete``, ``ModelCorrupt``.
    """
    return {name: tensor for file in weight_files(directory) for name, tensor in read_header(file, directory.name).items()}


def weight_files(path: Path) -> list[Path]:
    """Return the files that hold a model's weights: those that transformers opens, one file before an index.

    Raises:
        StageError: ``ModelIncomplete``: there are none, or one of several is missing.
    """
    index = path / INDEX
    sharded = index.is_file() and not (path / WEIGHTS).is_file()
    names = sorted(set(_read_json(index).get("weight_map", {}).values())) if sharded else [WEIGHTS]
    missing = [name for name in names if not (path / name).is_file()]
    if missing or not names:
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            f"{path.name} has no {', '.join(missing[:3]) or 'weights'}: use a model that is saved as safetensors, with all its files.",
        )
    return [path / name for name in names]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise StageError(
            reasons.MODEL_INCOMPLETE, f"{file.parent.name} has no {file.name}: use a model directory in the Hugging Face layout."
        ) from None
    except (OSError, ValueError) as error:
        raise _corrupt(file, str(error)) from error
    if not isinstance(data, dict):
        raise _corrupt(file, "it is no JSON object")
    return data


def _corrupt(file: Path, why: str) -> StageError:
    return StageError(reasons.MODEL_CORRUPT, f"{file.parent.name}/{file.name}: {why}; fetch the model again.")
