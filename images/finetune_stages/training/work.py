"""The work of stage *training*, from two directories of the workspace to a model that was opened again.

Standard library only up to the first import of the engine: a wrong value, a missing package or a damaged model is answered
before seconds are spent on imports.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_contract import reasons
from finetune_contract.documents import OsftInputs, TrainingInputs
from finetune_contract.progress import Progress
from finetune_contract.result import LossPoint, TrainingOutputs, thin
from finetune_stages.kit import Context, Finished, Seal, StageError, read_seal, seal_directory

from .libraries import require_engine
from .machine import peak_memory, readable
from .memory import micro_batch_size, require_memory, require_room, rows_of_a_process, tokens_that_fit
from .pretrained import Pretrained
from .processes import Processes
from .surroundings import prepare_environment, private_folder

if TYPE_CHECKING:
    from .batches import BatchPlan
    from .rows import Rows
    from .subspace import Subspace

_HISTORY = 2000
"""Points of the loss curve in the full result."""


def train(context: Context, processes: Processes) -> Finished:
    """Train, write the model, open it again and publish it. Only rank 0 writes; what other ranks return says nothing.

    Raises:
        StageError: every failure that the modules of this package name.
    """
    inputs = context.inputs(TrainingInputs)
    base = Pretrained.open(context.path(context.layout.base_model))
    _require_sense(inputs, processes)
    if not context.path(context.layout.train_data).is_file():
        raise StageError(
            reasons.DATASET_NOT_FOUND, f"{context.layout.train_data} is not in the workspace: rerun from the dataset stage."
        )
    require_engine(inputs.algorithm)
    if processes.rank == 0:
        require_room(context.workspace, base, inputs)
    with private_folder(context, processes) as folder:
        prepare_environment(folder, processes)
        with processes.group():
            return _Job(context, processes, inputs, base, folder).run()


def _require_sense(inputs: TrainingInputs, processes: Processes) -> None:
    """What the values of the document must be to one another, and to the number of processes."""
    if inputs.max_tokens_per_gpu < inputs.max_seq_len:
        raise StageError(
            reasons.BAD_TRAINING_VALUE,
            f"training.maxTokensPerGPU is {inputs.max_tokens_per_gpu}, less than training.maxSeqLen {inputs.max_seq_len}, so that the"
            " longest rows fit nowhere: raise the one or lower the other.",
        )
    ratio = (inputs.osft or OsftInputs()).unfreeze_rank_ratio
    if inputs.algorithm == "osft" and not 0 <= ratio <= 1:
        raise StageError(reasons.BAD_TRAINING_VALUE, f"training.osft.unfreezeRankRatio is {ratio:g}; it must be from 0 to 1.")
    rows_of_a_process(inputs, processes.world)


@dataclass(frozen=True)
class _Optimised:
    """What came out of the training loop: counts over all processes."""

    samples: int
    steps: int
    seconds: float
    tokens: int
    history: list[LossPoint]


@dataclass
class _Job:
    """One process's share of one training."""

    context: Context
    processes: Processes
    inputs: TrainingInputs
    base: Pretrained
    folder: Path

    def run(self) -> Finished:
        """The whole way, one step after the other."""
        tokenizer = self._tokenizer()
        left = require_memory(self.base, self.inputs, self.processes)
        rows = self._rows(tokenizer)
        plan = self._plan(rows, left)
        model, ignored = self._model()
        subspace = self._subspace(model)
        done = self._optimise(model, subspace, rows, plan, tokenizer)
        self._require_complete(done, model, len(rows))
        if self.processes.rank > 0:
            return Finished(outputs={})
        leak = {"osft_leak": subspace.leak()} if subspace else {}
        metrics = {**_curve(done.history), **self._counts(done, model, rows), **leak}
        seal = self._publish(model, subspace, rows, ignored)
        outputs = TrainingOutputs(
            digest=seal.digest, samples_seen=done.samples, expected_samples=self.inputs.epochs * len(rows), rows=len(rows),
            dropped_rows=rows.dropped, steps=done.steps, processes=self.processes.world, opened=True,
        )  # fmt: skip
        return Finished(outputs, metrics, thin(done.history, _HISTORY), self._sentence(done, rows))

    def _tokenizer(self) -> Any:
        self._note("loading PyTorch")
        import torch  # noqa: F401

        self._note("loading transformers")
        from .loading import load_tokenizer

        return load_tokenizer(self.base.path, self.inputs.trust_remote_code)

    def _rows(self, tokenizer: Any) -> Rows:
        """Tokens and labels: made by rank 0, read from its file by the others."""
        from .chat import ChatRenderer
        from .rows import Rows, count_rows, read_rows, tokenise

        path = self.context.path(self.context.layout.train_data)
        shared = self.context.path(self.context.layout.attempt(self.context.document.stage, self.context.attempt)) / "rows.npz"
        if self.processes.rank > 0:
            self.processes.broadcast(None)
            return Rows.load(shared)
        total = count_rows(path)
        renderer = ChatRenderer(tokenizer, self.inputs.unmask, path.name)
        rows = tokenise(
            read_rows(path), tokenizer, renderer, self.inputs.max_seq_len,
            lambda done: self._note(f"tokenising row {done} of {total}", force=False),
        )  # fmt: skip
        if self.processes.world > 1:
            rows.save(shared)
            self.processes.broadcast(None)
        return rows

    def _plan(self, rows: Rows, memory_left: int | None) -> BatchPlan:
        """Which rows go into which forward pass."""
        import torch

        from .batches import BatchPlan

        self._note("loading datasets and TRL")
        from .trainer import require_schedule

        fit = tokens_that_fit(self.base, self.inputs, memory_left, torch.cuda.is_available())
        # Every process must come to the same plan, whatever its own memory allows.
        fits = [number for number in self.processes.gather(fit) if isinstance(number, int)]
        micro = micro_batch_size(self.inputs, self.processes.world, int(rows.lengths.max()), min(fits, default=None))
        plan = BatchPlan(
            rows.lengths, self.inputs.effective_batch_size, micro, self.processes.world, self.processes.rank, self.inputs.seed,
            filler=len(rows),
        )  # fmt: skip
        require_schedule(self.inputs, plan.steps * self.inputs.epochs)
        return plan

    def _model(self) -> tuple[Any, set[str]]:
        from .loading import load_model

        self._note("loading the base model")
        return load_model(self.base.path, self.inputs.trust_remote_code, self.processes.local_rank)

    def _subspace(self, model: Any) -> Subspace | None:
        if self.inputs.algorithm != "osft":
            return None
        self._note("loading PEFT")
        from .subspace import prepare

        subspace = prepare(
            model, self.inputs.osft or OsftInputs(),
            lambda done, total: self._note(f"decomposing weight {done} of {total}", force=False),
        )  # fmt: skip
        # A decomposition is unique up to signs only, and not every device chooses the same.
        self.processes.agree(tensor for layer in subspace.layers.values() for tensor in (*layer.parameters(), *layer.buffers()))
        return subspace

    def _optimise(self, model: Any, subspace: Subspace | None, rows: Rows, plan: BatchPlan, tokenizer: Any) -> _Optimised:
        from .trainer import RowTrainer, Watch, arguments, collator, dataset_of

        watch = Watch(
            self._report, plan.tokens_after_steps(self.inputs.epochs), self.inputs.epochs, subspace.project if subspace else None,
            (lambda epoch: self._checkpoint(epoch, model, subspace)) if self._keeps_checkpoints else None,
        )  # fmt: skip
        trainer = RowTrainer(
            plan, model=model, args=arguments(self.inputs, plan, self.folder / "trainer"), train_dataset=dataset_of(rows),
            data_collator=collator(tokenizer), processing_class=tokenizer, callbacks=[watch],
        )  # fmt: skip
        if self.processes.rank == 0:  # of an earlier round: they belong to a model that is about to be replaced
            shutil.rmtree(self.context.path(self.context.layout.checkpoints), ignore_errors=True)
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
        samples = sum(number for number in self.processes.gather(trainer.samples) if isinstance(number, int))
        steps = trainer.state.global_step
        trainer.accelerator.free_memory()
        del trainer
        gc.collect()  # the optimizer's memory is needed to open the model again
        return _Optimised(samples, steps, seconds, int(watch.tokens_after[-1]), watch.history)

    def _require_complete(self, done: _Optimised, model: Any, rows: int) -> None:
        """Every sample was seen, and every process has come to the same weights."""
        import torch

        expected = self.inputs.epochs * rows
        if done.samples != expected:
            raise StageError(
                reasons.TRAINING_INCOMPLETE,
                f"Training saw {done.samples} of {expected} samples ({self.inputs.epochs} x {rows} rows).",
            )
        trained = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
        mark = float(sum(torch.linalg.vector_norm(parameter, dtype=torch.float64) for parameter in trained))
        marks = [number for number in self.processes.gather(mark) if isinstance(number, float)]
        if max(marks) - min(marks) > 1e-9 * max(marks):
            raise StageError(
                reasons.TRAINING_INCOMPLETE,
                f"The {len(marks)} processes ended with different weights: they did not train together.",
            )

    @property
    def _keeps_checkpoints(self) -> bool:
        return self.inputs.checkpoints.per_epoch and self.processes.rank == 0

    def _checkpoint(self, epoch: int, model: Any, subspace: Subspace | None) -> None:
        """The model as it is after an epoch, as a directory of its own; older ones go."""
        folder = self.folder / f"epoch_{epoch}"
        self._note(f"writing the checkpoint of epoch {epoch}")
        self._write(folder, model, subspace)
        seal_directory(folder, {"base": self._base_digest, "epoch": epoch})
        self.context.publish(folder, f"{self.context.layout.checkpoints}/{folder.name}")
        keep = self.inputs.checkpoints.keep
        if keep is not None and epoch > keep:
            shutil.rmtree(self.context.path(f"{self.context.layout.checkpoints}/epoch_{epoch - keep}"), ignore_errors=True)

    def _publish(self, model: Any, subspace: Subspace | None, rows: Rows, ignored: set[str]) -> Seal:
        from .proof import Proof

        folder = self.folder / "final_model"
        proof = Proof(self.base, model, rows, ignored, self.inputs.trust_remote_code)
        self._note("writing the model", percent=99)
        self._write(folder, model, subspace)
        self._note("opening the model again", percent=99)
        proof.open_again(folder)
        note: dict[str, str | int | float | bool] = {
            "base": self._base_digest, "algorithm": self.inputs.algorithm, "epochs": self.inputs.epochs,
        }  # fmt: skip
        seal = seal_directory(folder, note, self._sealing(folder))
        self.context.publish(folder, self.context.layout.final_model)
        return seal

    def _sealing(self, folder: Path) -> Callable[[int], None]:
        """Tells how much of a directory is hashed already."""
        total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        done = 0

        def seen(more: int) -> None:
            nonlocal done
            done += more
            self._note(f"sealing the model: {readable(done)} of {readable(total)}", percent=99, force=False)

        return seen

    def _write(self, folder: Path, model: Any, subspace: Subspace | None) -> None:
        from .checkpoint import write_model

        write_model(folder, model, subspace.plain_state() if subspace else model.state_dict().items(), self.base)

    @property
    def _base_digest(self) -> str:
        seal = read_seal(self.base.path)
        return seal.digest if seal else ""

    def _counts(self, done: _Optimised, model: Any, rows: Rows) -> dict[str, float]:
        import torch

        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_memory()
        return {
            "train_seconds": round(done.seconds, 3), "tokens": done.tokens, "tokens_per_second": round(done.tokens / done.seconds, 1),
            "peak_memory_bytes": peak, "steps": done.steps, "rows": len(rows), "dropped_rows": rows.dropped,
            "trainable_parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        }  # fmt: skip

    def _sentence(self, done: _Optimised, rows: Rows) -> str:
        first, last = done.history[0].loss, done.history[-1].loss
        left_out = [
            (rows.too_long, f"longer than {self.inputs.max_seq_len} tokens"),
            (rows.without_label, "with nothing to learn"),
        ]
        also = "".join(f"; {count:,} rows {why} left out" for count, why in left_out if count)
        return (
            f"{self.inputs.algorithm}: {self.inputs.epochs} x {len(rows):,} rows in {done.steps:,} steps and {done.seconds:.0f} s,"
            f" loss {first:.3f} to {last:.3f}{also}"
        )

    def _report(self, progress: Progress, force: bool = False) -> None:
        if self.processes.rank == 0:
            self.context.report(progress, force)

    def _note(self, words: str, percent: int = 0, force: bool = True) -> None:
        before = self.context.last_progress or Progress(0)
        self._report(replace(before, percent=max(percent, before.percent), note=words), force)


def _curve(history: list[LossPoint]) -> dict[str, float]:
    losses = [point.loss for point in history]
    tenth = losses[-max(1, len(losses) // 10) :]
    return {
        "first_loss": losses[0],
        "final_loss": losses[-1],
        "min_loss": min(losses),
        "last_tenth_loss": sum(tenth) / len(tenth),
    }
