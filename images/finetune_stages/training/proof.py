"""Verification of a written model: it is loaded again as a server would load it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.safetensors_header import Tensor

from .pretrained import Pretrained, has_other_weights, read_tensors
from .rows import IGNORED, Rows

_EXACT = (1e-3, 1e-3)
_ROUNDED = (0.05, 0.2)
"""Relative and absolute tolerance of a row's loss after rounding to 16 bits."""


Row = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Tokens and labels of a row, (length,)."""


class Proof:
    """Reference for the verification of a written model: its base model, and the loss of one row in the trained model.

    Attributes:
        model: the trained model in memory.
        ignored: names in the base's files that its class does not read.
    """

    def __init__(self, base: Pretrained, model: Any, rows: Rows, ignored: set[str], trust_remote_code: bool) -> None:
        self.base, self.model, self.ignored = base, model, ignored
        self._trust_remote_code = trust_remote_code
        self._row = shortest(rows)
        self._loss = row_loss(model, self._row)

    def open_again(self, directory: Path) -> None:
        """Check a model directory: headers, names, configuration, chat template, weights, and one forward pass.

        Raises:
            StageError: ``Crashed``: the written model differs from the trained one. ``BadTrainingValue``: it is the base model.
        """
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        self._compare_names(read_tensors(directory))
        if not has_other_weights(self.base.path, directory):
            raise StageError(
                reasons.BAD_TRAINING_VALUE,
                "training.learningRate: training changed no weight by as much as its dtype can represent; raise it, or lower"
                " training.warmupSteps.",
            )
        trust = {"trust_remote_code": self._trust_remote_code}
        config = AutoConfig.from_pretrained(directory, **trust)
        tokenizer = AutoTokenizer.from_pretrained(directory, **trust)
        has_template = AutoTokenizer.from_pretrained(self.base.path, **trust).chat_template is not None
        if has_template and not tokenizer.apply_chat_template(
            [{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True
        ):
            raise _broken("its chat template renders an empty text")
        opened, report = AutoModelForCausalLM.from_pretrained(
            directory, config=config, dtype="auto", output_loading_info=True, **trust
        )
        unknown = set(report["unexpected_keys"]) - self.ignored
        wrong = sorted({*report["missing_keys"], *map(str, report["mismatched_keys"]), *unknown})
        if wrong:
            raise _broken(f"its weights do not fit its configuration: {', '.join(wrong[:3])}")
        self._compare_loss(opened.to(self.model.device), "weights")

    def open_adapter(self, folder: Path) -> None:
        """Apply a written adapter to the base model as a server would, and check the same forward pass.

        Raises:
            StageError: ``Crashed``: the written model differs from the trained one.
        """
        from transformers import AutoModelForCausalLM

        from .lora import attach

        base = AutoModelForCausalLM.from_pretrained(self.base.path, dtype="auto", trust_remote_code=self._trust_remote_code)
        self._compare_loss(attach(base.to(self.model.device), folder).plain, "adapter")

    def _compare_names(self, written: dict[str, Tensor]) -> None:
        """Check that names and shapes are those of the base model; tied tensors may have either name."""
        excused = self.ignored | _tied(self.model)
        differing = sorted((set(written) ^ set(self.base.tensors)) - excused)
        if differing:
            raise _broken(f"its weights are not those of the base model: {', '.join(differing[:3])}")
        for name in set(written) & set(self.base.tensors):
            before, after = self.base.tensors[name].shape, written[name].shape
            if before != after:
                raise _broken(f"{name} has shape {list(after)}, in the base model {list(before)}")

    def _compare_loss(self, opened: Any, what: str) -> None:
        loss = row_loss(opened, self._row)
        relative, absolute = _EXACT if self.base.dtype in ("F32", "F64") else _ROUNDED
        if not math.isclose(loss, self._loss, rel_tol=relative, abs_tol=absolute):
            raise _broken(f"a row's loss was {self._loss:.4f} in training and is {loss:.4f} with the written {what}")


def row_loss(model: Any, row: Row) -> float:
    """Return the row's mean loss in nats per label, with dropout off and in the model's own dtype."""
    model.eval()
    tokens, labels = (torch.from_numpy(values.astype(np.int64))[None].to(model.device) for values in row)
    with torch.no_grad():
        return float(model(input_ids=tokens, labels=labels, use_cache=False).loss)


def _tied(model: Any) -> set[str]:
    """Return the names of parameters that share one tensor."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name for shared in names.values() if len(shared) > 1 for name in shared}


def shortest(rows: Rows) -> Row:
    """Return tokens and labels of the shortest row, (length,)."""
    shortest = int(np.argmin(rows.lengths))
    place = slice(int(rows.offsets[shortest]), int(rows.offsets[shortest + 1]))
    return rows.tokens[place], np.where(rows.learned[place], rows.tokens[place], np.int32(IGNORED))


def _broken(why: str) -> StageError:
    return StageError(reasons.CRASHED, f"final_model: the written model differs from the trained one: {why}; report it.")
