"""Steps of engine ``training-hub``: rows and arguments, the call, the proof that it trained, and the publication of its model."""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_contract import reasons
from finetune_contract.documents import OsftInputs, TrainingInputs
from finetune_contract.progress import Progress
from finetune_contract.result import LossPoint, TrainingOutputs, thin
from finetune_stages.sdk import Context, Finished, Seal, StageError, quick_imports
from finetune_stages.sdk.nvidia import driver
from finetune_stages.training.consistency import require_consistent
from finetune_stages.training.environment import prepare_environment, private_folder
from finetune_stages.training.machine import killed_for_memory
from finetune_stages.training.memory import require_host_memory, require_room
from finetune_stages.training.model_format import require_readable
from finetune_stages.training.outcome import require_number, require_samples
from finetune_stages.training.pretrained import CONFIG, Pretrained, unread
from finetune_stages.training.processes import Processes
from finetune_stages.training.step_progress import StepProgress
from finetune_stages.training.summary import HISTORY, curve, incomplete, sentence, short_of_warm_up
from finetune_stages.training.supervise import ended_in_time
from finetune_stages.training.targets import require_matches
from finetune_stages.training.tokens import tokens_seal

from .arguments import MODELS, ROWS, arguments, output
from .call import run_call
from .failure import ended_late, failure
from .installed import BACKENDS, Installed
from .metrics import Metrics, Step

if TYPE_CHECKING:
    from finetune_stages.training.proof import Row
    from finetune_stages.training.publication import Publication
    from finetune_stages.training.rows import Rows
    from finetune_stages.training.tuning import Whole


_LOSS_INCREASE = 1.0
"""Nats by which the loss of a training row may increase although the loss of the training falls. With a model of zeros it increases to the
logarithm of the number of tokens, which is above 10 for most models."""
_NAME = re.compile(r"samples_\d+(\.\d+)?")
"""Name of the folder of a model."""
_ROWS_SIZE = 4
"""Size of the file of rows, which has tokens and labels as text, in sizes of the array of tokens."""


def train(context: Context, processes: Processes, installed: Installed) -> Finished:
    """Train, then verify and publish the model. Only the first pod publishes and returns a meaningful result.

    Raises:
        StageError: any failure of the modules in this package.
        Interrupted: SIGTERM was received; the backend's processes have ended.
    """
    inputs = context.inputs(TrainingInputs)
    base = Pretrained.open(context.path(context.layout.base_model))
    require_readable(base)
    require_consistent(inputs, processes)
    if inputs.algorithm == "osft":  # without a match, mini-trainer trains every weight in full
        matrices = (name for name, tensor in base.tensors.items() if len(tensor.shape) == 2 and name.endswith(".weight"))
        require_matches(matrices, (inputs.osft or OsftInputs()).target_patterns, "training.osft.targetPatterns")
    tokens_seal(context.workspace, context.layout)
    if processes.rank == 0:
        rows_size = _ROWS_SIZE * (context.workspace / context.layout.token_ids).stat().st_size
        # A model is written before an older one is removed.
        require_room(context.workspace, base, inputs, (_kept_models(inputs) + 1) * base.size + rows_size)
        require_host_memory(2 * base.size, "the verification of the model")
    with private_folder(context, processes) as folder:
        prepare_environment(folder, processes)
        return _Job(context, processes, inputs, base, folder, installed).run()


@dataclass
class _Job:
    """Training of one pod's processes."""

    context: Context
    processes: Processes
    inputs: TrainingInputs
    base: Pretrained
    folder: Path
    installed: Installed

    def run(self) -> Finished:
        """Run all steps and return the result."""
        from finetune_stages.training.rows import Rows

        from .rows import write_rows

        rows = Rows.open(self.context.workspace, self.context.layout, self.inputs.max_seq_len)
        with quick_imports():
            from finetune_stages.training.settings import require_schedule

        require_schedule(self.inputs, self.inputs.epochs * -(-len(rows) // self.inputs.effective_batch_size))
        write_rows(rows, self.folder / ROWS, lambda done: self._note(f"writing rows: {done:,} of {len(rows):,}"))
        started = time.monotonic()
        reported = self._optimize(len(rows))
        seconds = time.monotonic() - started
        if self.processes.rank > 0:
            return Finished(outputs={})
        newest = self._require_complete(reported, len(rows))
        history = [LossPoint(step.number, round(step.loss, 6)) for step in reported]
        steps = self._total(reported[-1], len(rows))
        last = self.context.last_progress or Progress(0)
        self.context.report(
            replace(last, percent=99, step=steps, total_steps=steps, epoch=float(self.inputs.epochs), eta_seconds=0), force=True
        )
        with ended_in_time(worker=False):  # loading and writing a model can delay the handler of SIGTERM
            seal, ignored = self._publish(newest, rows, history)
        outputs = TrainingOutputs(
            digest=seal.digest, samples_seen=_samples(newest), expected_samples=self.inputs.epochs * len(rows), rows=len(rows),
            dropped_rows=rows.dropped, steps=steps, processes=self.processes.world, opened=True,
        )  # fmt: skip
        tokens = self.inputs.epochs * int(rows.lengths.sum())
        metrics = {
            **curve(history), "train_seconds": round(seconds, 3), "tokens": tokens, "tokens_per_second": round(tokens / seconds, 1),
            "steps": steps, "rows": len(rows), "dropped_rows": rows.dropped,
        }  # fmt: skip
        message = sentence(self.inputs, history, steps, seconds, rows=len(rows), dropped=rows.dropped)
        warnings = (*unread(ignored), *short_of_warm_up(self.inputs.warmup_steps, steps), *incomplete(history, steps))
        return Finished(outputs, metrics, thin(history, HISTORY), message, warnings)

    def _optimize(self, rows: int) -> list[Step]:
        """Call the backend, and return the steps that it reported, in order; pods other than the first report none."""
        backend, algorithm = BACKENDS[self.inputs.algorithm], self.inputs.algorithm
        flash_attention = "flash-attn" in self.installed.versions and _supports_flash_attention()
        call = arguments(
            self.inputs, self.processes, self.base.path, self.folder, self.installed, flash_attention=flash_attention
        )  # fmt: skip
        metrics, started = Metrics(algorithm, self.folder), time.monotonic()
        self._note(f"starting {backend}")

        def poll() -> None:
            for step in sorted(metrics.update(), key=lambda step: step.number):
                require_number(step.loss, "loss", step.number)
                self._report_step(step, rows, started)
            self._remove_older_models()

        killed = killed_for_memory()
        ended = run_call(algorithm, call, self.folder, poll)
        if ended.code and not ended_late(ended.output):
            if killed_for_memory() > killed:
                raise StageError(
                    reasons.HOST_OUT_OF_MEMORY,
                    f"training.resources.memory: the kernel killed a process of {backend} because the pod reached its memory limit; raise it.",
                )
            raise failure(backend, ended.code, ended.output)
        return sorted(metrics.steps, key=lambda step: step.number)

    def _report_step(self, step: Step, rows: int, started: float) -> None:
        if self.processes.rank == 0:
            progress = StepProgress(self._total(step, rows), self.inputs.epochs, started)
            self.context.report(progress.after(step.number, step.samples / rows, step.loss, learning_rate=step.learning_rate))

    def _total(self, step: Step, rows: int) -> int:
        """Return the number of steps of a complete training, which the last line of the metrics need not show: it can be missing."""
        return self.inputs.epochs * (step.per_epoch or -(-rows // self.inputs.effective_batch_size))

    def _require_complete(self, steps: list[Step], rows: int) -> Path:
        """Check that every sample was processed, and return the newest model: an exit code of 0 proves neither.

        The samples are those of the metrics, or those in the name of a model if the last lines of the metrics are missing. A training that
        did not start with the first sample has counted samples that it skipped.
        """
        expected, models = self.inputs.epochs * rows, self._models()
        require_samples(max([0, *(step.samples for step in steps), *map(_samples, models)]), self.inputs, rows)
        if not models or _samples(models[-1]) != expected:
            raise _incomplete(f"the backend wrote no model after {expected} samples")
        if not steps:
            raise _incomplete("the backend wrote a model and no metrics")
        if steps[0].samples > self.inputs.effective_batch_size:
            raise _incomplete(f"the first step that the backend reports ended with sample {steps[0].samples}")
        return models[-1]

    def _models(self) -> list[Path]:
        """Return the folders of models, the oldest first. While the backend runs, the newest one can be incomplete."""
        found = (
            path
            for path in (output(self.folder) / MODELS).glob("samples_*")
            if _NAME.fullmatch(path.name) and (path / CONFIG).exists()
        )
        return sorted(found, key=_samples)

    def _remove_older_models(self) -> None:
        """Remove models that a newer one replaces: instructlab-training writes one after each epoch."""
        for path in self._models()[: -(_kept_models(self.inputs) + 1)]:  # the newest one may be incomplete
            shutil.rmtree(path)

    def _publish(self, newest: Path, rows: Rows, history: list[LossPoint]) -> tuple[Seal, set[str]]:
        with quick_imports():
            from finetune_stages.training.proof import Proof, row_loss, shortest

        ignored, before, loss = self._opened_base(shortest(rows))
        trained = self._opened(newest)
        if _fingerprint(trained.model) == before:
            raise StageError(
                reasons.TRAINING_INCOMPLETE,
                "training: the backend's model has the weights of the base model; raise training.learningRate, lower training.warmupSteps,"
                " or set training.engine to portable.",
            )
        after = row_loss(trained.model, shortest(rows))
        if history[-1].loss < history[0].loss and not after < loss + _LOSS_INCREASE:
            raise _incomplete(
                f"the backend reports a loss that falls from {history[0].loss:.3f} to {history[-1].loss:.3f}, but the loss of a row is"
                f" {loss:.3f} with the base model and {after:.3f} with the backend's model"
            )
        publication = self._publication
        publication.clear_checkpoints()
        for epoch in range(1, self.inputs.epochs + 1) if self.inputs.checkpoints.per_epoch else ():
            for path in self._models():
                if _samples(path) == epoch * len(rows):
                    publication.checkpoint(epoch, self._opened(path))
        proof = Proof(self.base, trained.plain, rows, ignored, self.inputs.trust_remote_code)
        return publication.model(trained, proof)[0], ignored

    def _opened_base(self, row: Row) -> tuple[set[str], list[float], float]:
        """Return the names in the base model's files that its class does not read, a mark of its weights, and its loss of a row."""
        from finetune_stages.training.checkpoint import dtype_of
        from finetune_stages.training.loading import load_model
        from finetune_stages.training.proof import row_loss

        self._note("comparing with the base model")
        model, ignored = load_model(self.base.path, self.inputs.trust_remote_code, None, dtype_of(self.base))
        return ignored, _fingerprint(model), row_loss(model, row)

    def _opened(self, path: Path) -> Whole:
        """Return a backend's model in CPU memory, with the dtype of the base model."""
        from finetune_stages.training.checkpoint import dtype_of
        from finetune_stages.training.loading import load_model
        from finetune_stages.training.tuning import Whole

        try:
            model, _ = load_model(path, self.inputs.trust_remote_code, None, dtype_of(self.base))
        except StageError as error:
            raise _incomplete(f"the backend's model cannot be loaded ({error.message[:300].rstrip('.')})") from error
        return Whole(model)

    @property
    def _publication(self) -> Publication:
        from finetune_stages.training.publication import Publication

        return Publication(self.context, self.base, self.inputs, self.folder, self._note)

    def _note(self, words: str, percent: int = 0, force: bool = True) -> None:
        if self.processes.rank == 0:
            before = self.context.last_progress or Progress(0)
            self.context.report(replace(before, percent=max(percent, before.percent), note=words), force)


def _supports_flash_attention() -> bool:
    """Return whether flash-attn 2 supports the first GPU; instructlab-training fails if it is requested on another one."""
    gpus = driver().gpus
    return bool(gpus) and (gpus[0].capability[0] == 8 or gpus[0].capability == (9, 0))


def _kept_models(inputs: TrainingInputs) -> int:
    """Return the number of the backend's models that are kept until they are published."""
    checkpoints = inputs.checkpoints
    return min(inputs.epochs, checkpoints.keep or inputs.epochs) if checkpoints.per_epoch else 1


def _incomplete(what: str) -> StageError:
    return StageError(
        reasons.TRAINING_INCOMPLETE, f"training: {what}; read the log of stage training, or set training.engine to portable."
    )


def _samples(model: Path) -> int:
    """Return the number of samples in a folder's name: ``samples_400`` or ``samples_400.0``."""
    return int(float(model.name.split("_")[1]))


def _fingerprint(model: object) -> list[float]:
    """Return one number per weight, which a training changes."""
    import torch

    assert isinstance(model, torch.nn.Module)
    return [float(parameter.detach().double().square().sum()) for parameter in model.parameters()]
