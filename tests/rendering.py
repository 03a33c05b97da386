"""What tests of rendering share: tokenizers with the chat templates of known families, and stage *tokenization* in this process."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from finetune_contract import CONTRACT_VERSION
from finetune_contract.codec import digest, encode
from finetune_contract.documents import RunInfo, StageDocument, TokenizationInputs
from finetune_contract.workspace import Attempt
from finetune_stages.sdk import Context, Finished, seal_directory

TEMPLATES = Path(str(find_spec("trl").origin)).parent / "chat_templates"  # type: ignore[union-attr]
SPECIAL = (
    "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<start_of_turn>",
    "<end_of_turn>", "<eos>", "<bos>", "<think>", "</think>",
)  # fmt: skip
"""Special tokens of the families below."""
ENDS = {"llama3": "<|eot_id|>", "llama3_1": "<|eot_id|>", "gemma": "<end_of_turn>", "gemma3": "<end_of_turn>"}
"""The token that ends a turn, where it is not that of Qwen."""
INPUTS = TokenizationInputs(max_seq_len=4096)
RUN = RunInfo("demo", "team-a", "0123456789abcdef")


def family(tiny_model: Path, target: Path, name: str, special: Sequence[str] = SPECIAL, embeddings: int | None = None) -> Path:
    """A model directory without weights: the tiny model's tokenizer, the chat template of a family, and a configuration.

    ``name`` may be a template's text. ``embeddings`` are those of the model; without it there are enough.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.eos_token = ENDS.get(name, "<|im_end|>")
    tokenizer.bos_token = "<bos>" if "<bos>" in special else tokenizer.bos_token
    tokenizer.chat_template = name if "{" in name else (TEMPLATES / f"{name}.jinja").read_text()
    tokenizer.save_pretrained(target)
    config = json.loads((tiny_model / "config.json").read_bytes())
    (target / "config.json").write_text(json.dumps({**config, "vocab_size": embeddings or len(tokenizer)}))
    return target


@cache
def skill_rows(skill: str) -> list[dict[str, Any]]:
    """The example's rows of a skill, the same for the whole process: libraries that are imported meanwhile add documentation."""
    import pydocs

    return list(pydocs.rows(skill))


@dataclass
class Tokenization:
    """A workspace with rows and a model, and the stage on it."""

    workspace: Path
    run: RunInfo = RUN

    @property
    def task_files(self) -> Path:
        """The mounted ConfigMap of ``evaluation.taskFiles``, if a test makes this folder."""
        return self.workspace.parent / "task-files"

    def path(self, relative: str) -> Path:
        """A path in the run's folder."""
        return self.workspace / self.run.layout.root / relative

    def write(
        self,
        train: Sequence[Any],
        held_out: Sequence[Any] = (),
        source: str = "rows.jsonl",
        dropped: int = 0,
        first: int = 1,
        form: str = "messages",
    ) -> None:
        """What stage *dataset* leaves; rows are JSON values, or lines as bytes. ``first``: number of the first row in its source."""
        folder = self.path("datasets")
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows, start in (("train", train, first), ("eval", held_out, first + len(train))):
            lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
            (folder / f"{name}.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
            numbers = np.arange(start, start + len(rows), dtype=np.int64)
            np.save(folder / f"{name}.locations.npy", np.stack([numbers, numbers], axis=1))
        note = {"droppedRows": dropped, "droppedTrainRows": dropped, "split": True}
        seal_directory(folder, {"source": source, "evalSource": source, "form": form, "evalForm": form, **note})

    def link_model(self, model: Path) -> None:
        """What stage *model* leaves."""
        self.path("base_model").unlink(missing_ok=True)
        self.path("base_model").parent.mkdir(parents=True, exist_ok=True)
        self.path("base_model").symlink_to(model)

    def context(self, inputs: TokenizationInputs) -> Context:
        """The stage's context."""
        document = StageDocument(CONTRACT_VERSION, "tokenization", self.run, encode(inputs))
        context = Context(document, self.workspace, Attempt(1, 1), digest(encode(inputs)))
        context.become_current()
        return context

    def __call__(self, **inputs: Any) -> Finished:
        """Run the stage's work."""
        from finetune_stages.tokenization.work import tokenize

        mounted = {"FINETUNE_TASK_FILES": str(self.task_files)} if self.task_files.is_dir() else {}
        with patch.dict(os.environ, mounted):
            return tokenize(self.context(replace(INPUTS, task_files=bool(mounted), **inputs)))

    def learned(self, number: int = 0) -> str:
        """A row to train on as text, what is learned in ``[[ ]]``."""
        from transformers import AutoTokenizer

        from finetune_stages.training.rows import Rows

        rows = Rows.open(self.workspace, self.run.layout, 10**6)
        place = slice(int(rows.offsets[number]), int(rows.offsets[number + 1]))
        tokenizer = AutoTokenizer.from_pretrained(self.path("base_model"))
        return in_brackets(tokenizer, rows.tokens[place], rows.learned[place])

    def scored(self, task: str = "holdout") -> list[list[str]]:
        """Each measured row's texts, what is scored in ``[[ ]]``."""
        lines = (self.workspace / self.run.layout.passages(task)).read_bytes().splitlines()
        return [[_marked(passage) for passage in json.loads(line)["passages"]] for line in lines]


def in_brackets(tokenizer: Any, ids: Any, learned: Any) -> str:
    """Tokens as text, those that are learned in ``[[ ]]``."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], learned, [False]]).astype(int)))
    text, start = "", 0
    for first, last in edges.reshape(-1, 2):
        text += f"{tokenizer.decode(ids[start:first])}[[{tokenizer.decode(ids[first:last])}]]"
        start = last
    return text + str(tokenizer.decode(ids[start:]))


def _marked(passage: dict[str, Any]) -> str:
    text, start = "", 0
    for first, last in passage["answers"]:
        text += f"{passage['text'][start:first]}[[{passage['text'][first:last]}]]"
        start = last
    return text + str(passage["text"][start:])
