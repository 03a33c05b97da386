"""A model directory in the Hugging Face layout, as files: what its weights are called, how large they are, what lies beside them.

Read without any library, so that a wrong model is refused before seconds are spent on imports.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune_contract import reasons
from finetune_contract.workspace import SENTINEL
from finetune_stages.kit import StageError

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_TIED = "tie_word_embeddings"
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_TRAINABLE = ("F64", "F32", "BF16", "F16")
_COPIED = {".json", ".jinja", ".txt", ".model", ".tiktoken", ".py"}
_LICENCES = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")


@dataclass(frozen=True)
class Tensor:
    """One weight: dtype in safetensors' words (``BF16``), and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def numbers(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self.numbers * _SIZES.get(self.dtype, 1)


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
        tensors = {name: tensor for file in weight_files(path) for name, tensor in read_header(file).items()}
        unusual = sorted({tensor.dtype for tensor in tensors.values() if tensor.dtype not in _SIZES})
        stated = config.get("quantization_config")
        if unusual or stated:
            how = ", ".join(unusual) or (isinstance(stated, dict) and stated.get("quant_method")) or "by its configuration"
            raise StageError(
                reasons.MODEL_UNSUPPORTED,
                f"model.uri: the weights are quantized ({how}), and no gradient leads to such weights; name the unquantized model that they"
                " were made from.",
            )
        return cls(path, config, tensors)

    @cached_property
    def parameters(self) -> int:
        """Numbers in all weights."""
        return sum(tensor.numbers for tensor in self.tensors.values())

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
                counts[tensor.dtype] += tensor.numbers
        return counts.most_common(1)[0][0] if counts else "F32"

    def text_config(self, name: str, default: int) -> int:
        """A number of the language model's configuration, which multimodal models keep one level down."""
        inner = self.config.get("text_config")
        value = self.config.get(name, inner.get(name) if isinstance(inner, dict) else None)
        return value if isinstance(value, int) else default

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


def weight_files(path: Path) -> list[Path]:
    """The files that hold a model's weights.

    Raises:
        StageError: ``ModelIncomplete``: there are none, or one of several is missing.
    """
    index = path / INDEX
    names = sorted(set(_read_json(index).get("weight_map", {}).values())) if index.is_file() else [WEIGHTS]
    missing = [name for name in names if not (path / name).is_file()]
    if missing or not names:
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            f"{path.name} has no {', '.join(missing[:3]) or 'weights'}: use a model that is saved as safetensors, with all its files.",
        )
    return [path / name for name in names]


def read_header(file: Path) -> dict[str, Tensor]:
    """Names, dtypes and shapes in a safetensors file, checked against its size.

    The form: eight bytes with the header's length, the header as JSON, then the numbers.

    Raises:
        StageError: ``ModelCorrupt``: it does not have that form, or is cut off.
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            size = file.stat().st_size
            header: dict[str, Any] = json.loads(stream.read(length)) if length <= size else {"": None}
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        tensors = {name: Tensor(entry["dtype"], tuple(map(int, entry["shape"]))) for name, entry in entries.items()}
        ends = [entry["data_offsets"][1] for entry in entries.values()]
        spans = {name: entry["data_offsets"][1] - entry["data_offsets"][0] for name, entry in entries.items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise _corrupt(file, "its header cannot be read") from error
    if 8 + length + max(ends, default=0) != size:
        raise _corrupt(file, f"it has {size} bytes, its header speaks of {8 + length + max(ends, default=0)}")
    for name, tensor in tensors.items():
        if tensor.dtype in _SIZES and (min(tensor.shape, default=0) < 0 or spans[name] != tensor.size):
            raise _corrupt(file, f"{name} of shape {list(tensor.shape)} has {spans[name]} bytes")
    return tensors


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
