"""The training loop compared with bare TRL: the same tiny model, rows, micro-batches and steps, one process, in turns.

Ours is TRL's trainer with a count of what was seen, progress, and without a GPU a loss that reads only the positions with a label.
Bare is ``SFTTrainer`` as its documentation shows it, but for the batches, which are ours: both do the same work, and must come to the
same losses. Target: at most 1.02 times the CPU seconds of a step.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import machine, spread

from finetune_operator.api.training import Algorithm

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "hack" / "example"), str(ROOT / "tests")]

PAIRS = 7
ROWS = 96
EPOCHS = 2
BATCH = 16
LONGEST = 256
WANTED = 1.02


@dataclass(frozen=True)
class Cost:
    """CPU and wall seconds of a step, and the loss of each."""

    cpu: float
    wall: float
    losses: list[float]


def main() -> None:
    """Print the figures."""
    print("training")
    print(machine())
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        model, rows, tokenizer = _prepare(place)
        algorithms: tuple[Algorithm, ...] = ("sft", "lora")
        for algorithm in algorithms:
            _compare(algorithm, model, rows, tokenizer, place)


def _compare(algorithm: Algorithm, model: Path, rows: Any, tokenizer: Any, place: Path) -> None:
    """Measure both in turns, in alternating order; the first pair is for warm-up."""
    sides: dict[str, Callable[[], Cost]] = {
        "ours": lambda: _ours(algorithm, model, rows, tokenizer, place),
        "bare TRL": lambda: _bare(algorithm, model, rows, tokenizer, place),
    }
    found: dict[str, list[Cost]] = {name: [] for name in sides}
    for number in range(PAIRS + 1):
        for name in sorted(sides, reverse=bool(number % 2)):
            measured = sides[name]()
            if number:
                found[name].append(measured)
    pairs = list(zip(found["ours"], found["bare TRL"], strict=True))
    if any(abs(one - other) > 1e-3 for ours, bare in pairs for one, other in zip(ours.losses, bare.losses, strict=True)):
        raise SystemExit(f"{algorithm}: the losses differ, so the two did not do the same work")
    print(
        f"  {algorithm}: {len(pairs[0][0].losses)} steps of {BATCH} rows, loss {pairs[0][0].losses[0]:.3f} to {pairs[0][0].losses[-1]:.3f}"
    )
    for kind in ("cpu", "wall"):
        for name, costs in found.items():
            print(f"    {name}, {kind} a step: {spread([getattr(cost, kind) for cost in costs], 'ms', 1e3)}")
        ratios = [getattr(ours, kind) / getattr(bare, kind) for ours, bare in pairs]
        print(f"    ours / bare TRL, {kind}: {spread(ratios, 'x')}{_verdict(ratios) if kind == 'cpu' else ''}")


def _verdict(ratios: list[float]) -> str:
    return f", wanted at most {WANTED}: {'yes' if statistics.median(ratios) <= WANTED else 'NO'}"


def _prepare(place: Path) -> tuple[Path, Any, Any]:
    """Write a tiny model, and the tokens and labels of the rows."""
    import base_model
    import pydocs
    from finetune_stages.sdk.loading import load_tokenizer
    from finetune_stages.training.rows import Rows
    from rendering import Tokenization

    chats = pydocs.rows("signature", ROWS)
    size = base_model.Size(vocabulary=1024, hidden=128, layers=4, heads=4, epochs=1, batch=32)
    base_model.train_base_model(place / "model", chats, size=size, report=lambda _line: None)
    stage = Tokenization(place / "workspace")
    stage.link_model(place / "model")
    stage.write(chats)
    stage(max_seq_len=LONGEST, bad_rows_share=1.0)
    rows = Rows.open(stage.workspace, stage.run.layout, LONGEST)
    return place / "model", rows, load_tokenizer(place / "model", False)


def _inputs(algorithm: Algorithm) -> Any:
    from finetune_contract.documents import TrainingInputs

    return TrainingInputs(algorithm, "portable", EPOCHS, BATCH, BATCH * LONGEST, LONGEST, 1e-3)


def _ours(algorithm: Algorithm, model: Path, rows: Any, tokenizer: Any, place: Path) -> Cost:
    from finetune_contract.documents import LoraInputs
    from finetune_stages.training import lora
    from finetune_stages.training.callback import TrainingCallback
    from finetune_stages.training.loading import load_model
    from finetune_stages.training.trainer import RowTrainer, collator, dataset_of

    inputs = _inputs(algorithm)
    loaded, _ = load_model(model, False, 0)
    trained = lora.prepare(loaded, LoraInputs(), 42).model if algorithm == "lora" else loaded
    plan = _plan(rows)
    callback = TrainingCallback(lambda _progress: None, plan.tokens_after_steps(EPOCHS), EPOCHS)
    return _measure(
        RowTrainer(
            plan, model=trained, args=RowTrainer.settings(inputs, plan, place / "ours"), train_dataset=dataset_of(rows),
            data_collator=collator(tokenizer, plan), processing_class=tokenizer, callbacks=[callback],
        )
    )  # fmt: skip


def _bare(algorithm: str, model: Path, rows: Any, tokenizer: Any, place: Path) -> Cost:
    import torch
    from peft import LoraConfig
    from torch.utils.data import DataLoader
    from transformers import AutoModelForCausalLM, PrinterCallback
    from trl import SFTConfig, SFTTrainer

    from finetune_contract.documents import LoraInputs
    from finetune_stages.training.targets import DEFAULT_PATTERNS
    from finetune_stages.training.trainer import dataset_of

    lora = LoraInputs()
    adapters = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=list(DEFAULT_PATTERNS), task_type="CAUSAL_LM")
    settings = SFTConfig(
        output_dir=str(place / "bare"), save_strategy="no", report_to="none", disable_tqdm=True, logging_steps=1, use_cpu=True,
        bf16=False, activation_checkpointing=False, dataset_kwargs={"skip_prepare_dataset": True}, max_length=None,
        dataloader_pin_memory=False, num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH, learning_rate=1e-3,
        lr_scheduler_type="cosine", adam_beta1=0.9, adam_beta2=0.95, weight_decay=0.0, max_grad_norm=1.0, seed=42,
    )  # fmt: skip

    class SameBatches(SFTTrainer):  # type: ignore[misc]
        def get_train_dataloader(self) -> Any:
            return DataLoader(self.train_dataset, batch_sampler=_plan(rows), collate_fn=self.data_collator)

    torch.manual_seed(settings.seed)
    trainer = SameBatches(
        model=AutoModelForCausalLM.from_pretrained(model, dtype="float32"), args=settings, train_dataset=dataset_of(rows),
        processing_class=tokenizer, peft_config=adapters if algorithm == "lora" else None,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return _measure(trainer)


def _plan(rows: Any) -> Any:
    from finetune_stages.training.batches import BatchPlan

    return BatchPlan(rows.lengths, BATCH, BATCH, 1, 0, 42, len(rows))


def _measure(trainer: Any) -> Cost:
    cpu, wall = time.process_time(), time.perf_counter()
    trainer.train()
    seconds = time.process_time() - cpu, time.perf_counter() - wall
    steps = trainer.state.global_step
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return Cost(seconds[0] / steps, seconds[1] / steps, losses)


if __name__ == "__main__":
    main()
