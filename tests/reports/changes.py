"""Changes of a model's directory, each as a function of it: the inputs of reports about base models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from families import edit_config

WEIGHTS = "model.safetensors"
Change = Callable[[Path], object]


def config(**changes: Any) -> Change:
    return lambda folder: edit_config(folder, **changes)


def write(name: str, text: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return change


def remove(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


def every(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def tokenizer_config(**changes: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def tensors(change_tensors: Callable[[dict[str, torch.Tensor]], object]) -> Change:
    def change(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change_tensors(found)
        save_file(found, folder / WEIGHTS, {"format": "pt"})

    return change


def add_tokens(*added: str, special: bool = True) -> Change:
    def change(folder: Path) -> None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        if special:
            tokenizer.add_special_tokens({"extra_special_tokens": list(added)})
        else:
            tokenizer.add_tokens(list(added))
        tokenizer.save_pretrained(folder)

    return change


def rename(old: str, new: str) -> Change:
    return tensors(lambda found: found.update({new: found.pop(old)}))


def template(text: str) -> Change:
    return write("chat_template.jinja", text)


def named_templates(**texts: str) -> Change:
    named = [{"name": name, "template": text} for name, text in texts.items()]
    return every(remove("chat_template.jinja"), tokenizer_config(chat_template=named))


def poison(name: str, number: float, dtype: torch.dtype, place: int = -1) -> Change:
    def change(found: dict[str, torch.Tensor]) -> None:
        found.update({key: value.to(dtype) for key, value in found.items()})
        found[name].view(-1)[place] = number

    return tensors(change)
