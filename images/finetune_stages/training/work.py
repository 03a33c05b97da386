"""Engine ``portable``: PyTorch and transformers, from tokens and base model to a verified model.

Only the standard library is used before the first import of the libraries, so that a wrong value or a damaged model fails before slow
imports.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_contract import reasons
from finetune_contract.documents import IMAGE_VARIABLE, LoraInputs, OsftInputs, TrainingInputs
from finetune_contract.progress import Progress
from finetune_contract.result import LossPoint, TrainingOutputs, thin
from finetune_stages.sdk import Context, Finished, Seal, StageError, quick_imports, without
from finetune_stages.sdk.fault import first_line
from finetune_stages.sdk.gpus import on_gpu, require_torch_gpus
from finetune_stages.sdk.loading import load_tokenizer

from .consistency import require_consistent
from .environment import prepare_environment, private_folder
from .machine import peak_memory
from .memory import (
    computes_in_bf16,
    frozen_in_16_bits,
    micro_batch_size,
    packed_sequences,
    packs,
    require_memory,
    require_room,
    tokens_that_fit,
)
from .model_format import require_readable
from .outcome import require_samples
from .pretrained import Pretrained, unread
from .processes import GPU_FIELD, Processes
from .quantization import configuration, quantization, require_device
from .summary import HISTORY, curve, sentence, short_of_warm_up
from .tokens import tokens_seal

if TYPE_CHECKING:
    from .batches import Plan
    from .publication import Publication
    from .rows import Rows
    from .tuning import Tuning


def train(context: Context, processes: Processes) -> Finished:
    """Train, then write, verify and publish the model. Only rank 0 writes and returns a meaningful result.

    Raises:
        StageError: any failure of the modules in this package.
    """
    inputs = context.inputs(TrainingInputs)
    base = Pretrained.open(context.path(context.layout.base_model))
    require_readable(base)
    require_consistent(inputs, processes)
    tokens_seal(context.workspace, context.layout)
    require_device(inputs)
    if processes.rank == 0:
        require_room(context.workspace, base, inputs)
    # PEFT imports it if it is installed, which takes a fifth of the import time.
    unused = nullcontext() if quantization(inputs) else without("bitsandbytes")
    with private_folder(context, processes) as folder, unused:
        prepare_environment(folder, processes)
        processes.announce()
        with processes.group():
            return _Job(context, processes, inputs, base, folder).run()


@dataclass(frozen=True)
class _Optimized:
    """Result of the training loop: counts over all processes."""

    samples: int
    steps: int
    seconds: float
    tokens: int
    history: list[LossPoint]


@dataclass
class _Job:
    """Share of one process in a training."""

    context: Context
    processes: Processes
    inputs: TrainingInputs
    base: Pretrained
    folder: Path

    def run(self) -> Finished:
        """Run all steps and return the result."""
        from .rows import Rows

        tokenizer = self._tokenizer()
        left = require_memory(self.base, self.inputs, self.processes)
        rows = Rows.open(self.context.workspace, self.context.layout, self.inputs.max_seq_len)
        plan = self._plan(rows, left)
        tuning, ignored = self._tuning(rows)
        done = self._optimize(tuning, rows, plan, tokenizer)
        self._require_complete(done, tuning.model, len(rows))
        if self.processes.rank > 0:
            return Finished(outputs={})
        metrics = {**curve(done.history), **self._counts(done, tuning.model, rows), **tuning.metrics()}
        seal, adapter = self._publish(self._unquantized(tuning), rows, ignored)
        outputs = TrainingOutputs(
            digest=seal.digest, samples_seen=done.samples, expected_samples=self.inputs.epochs * len(rows), rows=len(rows),
            dropped_rows=rows.dropped, steps=done.steps, processes=self.processes.world, opened=True,
            adapter_digest=adapter.digest if adapter else None,
        )  # fmt: skip
        message = sentence(self.inputs, done.history, done.steps, done.seconds, rows=len(rows), dropped=rows.dropped)
        warnings = (*unread(ignored), *short_of_warm_up(self.inputs.warmup_steps, done.steps))
        return Finished(outputs, metrics, thin(done.history, HISTORY), message, warnings)

    def _tokenizer(self) -> Any:
        with self._loading("PyTorch"):
            import torch  # noqa: F401
        require_torch_gpus(GPU_FIELD)
        with self._loading("transformers"):
            from transformers import AutoTokenizer  # noqa: F401

        return load_tokenizer(self.base.path, self.inputs.trust_remote_code)

    def _plan(self, rows: Rows, memory_left: int | None) -> Plan:
        """Return the batch plan."""
        with self._loading("the trainer"):
            from .settings import require_schedule
            from .trainers import trainer_class

        fit = tokens_that_fit(self.base, self.inputs, memory_left, trainer_class().builds_logits)
        # Every process must compute the same plan, whatever its own memory allows.
        fits = [number for number in self.processes.gather(fit) if isinstance(number, int)]
        plan = self._cut(rows, min(fits, default=None))
        require_schedule(self.inputs, plan.steps * self.inputs.epochs)
        return plan

    def _cut(self, rows: Rows, fit: int | None) -> Plan:
        from .batches import BatchPlan, PackedPlan

        longest, place = int(rows.lengths.max()), (self.processes.world, self.processes.rank, self.inputs.seed)
        effective, filler = self.inputs.effective_batch_size, len(rows)
        if packs(self.inputs):
            capacity, sequences = packed_sequences(self.inputs, longest, fit)
            return PackedPlan(rows.lengths, effective, sequences, *place, filler, capacity, self.inputs.epochs)
        micro = micro_batch_size(self.inputs, self.processes.world, longest, fit)
        return BatchPlan(rows.lengths, effective, micro, *place, filler)

    def _tuning(self, rows: Rows) -> tuple[Tuning, set[str]]:
        """Return the base model, prepared for the algorithm, and the names in its files that its class does not read."""
        import torch

        from .loading import load_model

        self._note("loading the base model")
        bf16 = computes_in_bf16()
        kind = quantization(self.inputs)
        model, ignored = load_model(
            self.base.path, self.inputs.trust_remote_code, self.processes.local_rank,
            torch.bfloat16 if frozen_in_16_bits(self.base, self.inputs, bf16) else torch.float32,
            configuration(kind, bf16) if kind else None,
        )  # fmt: skip
        if packs(self.inputs):
            from .packing import require_separation

            require_separation(model, rows)
        return self._prepared(model), ignored

    def _prepared(self, model: Any) -> Tuning:
        if self.inputs.algorithm == "sft":
            from .tuning import Whole

            return Whole(model)
        if self.inputs.algorithm == "lora":
            self._note("loading PEFT")
            from . import lora

            adapter = lora.prepare(model, self.inputs.lora or LoraInputs(), self.inputs.seed)
            self.processes.agree(adapter.parameters())  # devices may draw different numbers from one seed
            return adapter
        from .subspace import prepare

        subspace = prepare(
            model, self.inputs.osft or OsftInputs(),
            lambda done, total: self._note(f"decomposing weight {done} of {total}", force=False),
        )  # fmt: skip
        # A decomposition is unique only up to signs, and devices may differ.
        self.processes.agree(tensor for layer in subspace.layers.values() for tensor in (*layer.parameters(), *layer.buffers()))
        return subspace

    def _unquantized(self, tuning: Tuning) -> Tuning:
        """Return an adapter that was trained on quantized weights, applied to the original weights in CPU memory.

        The published model is not quantized: merging into quantized weights would make their rounding permanent.
        """
        if quantization(self.inputs) is None:
            return tuning
        from .checkpoint import dtype_of
        from .loading import load_model
        from .lora import attach
        from .tuning import Origin

        self._note("loading the unquantized base model")
        folder = self.folder / "adapter.trained"
        tuning.save_adapter(folder, Origin())
        model, _ = load_model(self.base.path, self.inputs.trust_remote_code, None, dtype_of(self.base))
        return attach(model, folder)

    def _optimize(self, tuning: Tuning, rows: Rows, plan: Plan, tokenizer: Any) -> _Optimized:
        from .callback import TrainingCallback
        from .packing import PackedRows
        from .trainer import collator, dataset_of
        from .trainers import trainer_class

        keeps = self.inputs.checkpoints.per_epoch and self.processes.rank == 0
        callback = TrainingCallback(
            self._report, plan.tokens_after_steps(self.inputs.epochs), self.inputs.epochs, tuning.after_step,
            (lambda epoch: self._publication.checkpoint(epoch, self._unquantized(tuning))) if keeps else None,
        )  # fmt: skip
        kind = trainer_class()
        trainer = kind(
            plan, PackedRows(rows) if packs(self.inputs) else None, model=tuning.model,
            args=kind.settings(self.inputs, plan, self.folder / "trainer"), train_dataset=dataset_of(rows),
            data_collator=collator(tokenizer, plan), processing_class=tokenizer, callbacks=[callback],
        )  # fmt: skip
        if self.processes.rank == 0:
            self._publication.clear_checkpoints()
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
        samples = sum(number for number in self.processes.gather(trainer.samples) if isinstance(number, int))
        steps = trainer.state.global_step
        trainer.accelerator.free_memory()
        del trainer
        gc.collect()  # the optimizer's memory is needed for the verification
        return _Optimized(samples, steps, seconds, int(callback.tokens_after[-1]), callback.history)

    def _require_complete(self, done: _Optimized, model: Any, rows: int) -> None:
        """Check that every sample was processed, and that all processes have the same weights."""
        import torch

        require_samples(done.samples, self.inputs, rows)
        trained = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
        mark = float(sum(torch.linalg.vector_norm(parameter, dtype=torch.float64) for parameter in trained))
        marks = [number for number in self.processes.gather(mark) if isinstance(number, float)]
        if max(marks) - min(marks) > 1e-9 * max(marks):
            raise StageError(
                reasons.TRAINING_INCOMPLETE,
                f"training: the {len(marks)} processes ended with different weights, so they did not train together; report it.",
            )

    @property
    def _publication(self) -> Publication:
        from .publication import Publication

        return Publication(self.context, self.base, self.inputs, self.folder, self._note)

    def _publish(self, tuning: Tuning, rows: Rows, ignored: set[str]) -> tuple[Seal, Seal | None]:
        from .proof import Proof

        proof = Proof(self.base, tuning.plain, rows, ignored, self.inputs.trust_remote_code)
        return self._publication.model(tuning, proof)

    def _counts(self, done: _Optimized, model: Any, rows: Rows) -> dict[str, float]:
        import torch

        peak = torch.cuda.max_memory_allocated() if on_gpu() else peak_memory()
        return {
            "train_seconds": round(done.seconds, 3), "tokens": done.tokens, "tokens_per_second": round(done.tokens / done.seconds, 1),
            "peak_memory_bytes": peak, "steps": done.steps, "rows": len(rows), "dropped_rows": rows.dropped,
            "trainable_parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        }  # fmt: skip

    def _report(self, progress: Progress, force: bool = False) -> None:
        if self.processes.rank == 0:
            self.context.report(progress, force)

    @contextmanager
    def _loading(self, what: str) -> Iterator[None]:
        self._note(f"loading {what}")
        try:
            with quick_imports():
                yield
        except ImportError as error:
            image = os.environ.get(IMAGE_VARIABLE) or "the training image"
            why = first_line(error, 300).rstrip(".")
            raise StageError(
                reasons.ENGINE_MISSING, f"training.image: {what} of {image} cannot be imported ({why}); use another image."
            ) from error

    def _note(self, words: str, percent: int = 0, force: bool = True) -> None:
        before = self.context.last_progress or Progress(0)
        self._report(replace(before, percent=max(percent, before.percent), note=words), force)
