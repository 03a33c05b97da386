"""Stage *engine-check*: whether the training image has an engine for the training, in a pod without GPUs, beside data and model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from finetune_contract.codec import decode
from finetune_contract.documents import EngineCheckInputs, LoraInputs, OsftInputs, TrainingInputs
from finetune_contract.result import EngineCheckOutputs, Result
from finetune_operator.api import reasons, stages
from finetune_operator.core.decision import Create
from finetune_operator.core.manifests.pod import PodNeeds
from finetune_operator.core.observation import Observed, Ref
from finetune_operator.core.origins import explicit_fields
from finetune_operator.core.paths import Object
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.resolved_spec import Resources
from finetune_operator.core.run import Run

from . import engine_records
from .base import ProgramStage
from .training import training_inputs, training_pod

DECIDING = (
    "algorithm", "engine", "micro_batch_size", "scheduler", "scheduler_args", "liger", "sharding", "gradient_checkpointing",
    "trust_remote_code",
)  # fmt: skip
"""The values of a training that decide about its engine, beside those of its algorithm (:func:`deciding_inputs`)."""
REJECTABLE = (
    "training.microBatchSize", "training.gradientCheckpointing", "model.trustRemoteCode", "training.scheduler",
    "training.schedulerArgs", "training.liger", "training.sft.sharding", "training.osft.unfreezeRankRatio", "training.osft.trainable",
    "training.osft.targetPatterns", "training.osft.memoryEfficientInit",
)  # fmt: skip
"""The fields that an engine may be unable to honor: whether a person set one of them decides, too."""
_ANY = TrainingInputs("sft", "auto", epochs=1, effective_batch_size=1, max_tokens_per_gpu=1, max_seq_len=1, learning_rate=1.0)


class EngineCheckStage(ProgramStage):
    """Check the training image. It is a TrainJob, so that its pod has the image, the placement and the runtime of training."""

    definition = stages.ENGINE_CHECK

    def skipped(self, run: Run) -> str | None:
        resolved, training = run.status["resolved"], run.resolved.training
        if not resolved.get("engineCheck"):
            return reasons.ENGINE_CHECK_DISABLED
        if not training.gpus_per_worker:
            return reasons.TRAINING_WITHOUT_GPU
        own = training.image is not None and training.image == resolved["images"].get(stages.TRAINING.image)
        return reasons.OWN_TRAINING_IMAGE if own else None

    def inputs(self, run: Run) -> EngineCheckInputs:
        explicit, training = explicit_fields(run.status["resolved"], "training", "model"), run.resolved.training
        return EngineCheckInputs(
            training=deciding_inputs(training_inputs(run)), gpus=training.gpus_per_worker, processes=training.workers * training.processes,
            explicit=tuple(field for field in explicit if f"{field}.".startswith(tuple(f"{one}." for one in ("training.engine", *REJECTABLE)))),
        )  # fmt: skip

    def pod(self, run: Run) -> PodNeeds:
        return replace(training_pod(run, gpus=0), resources=Resources("500m", "1Gi"), shared_memory=None)

    def lookups(self, run: Run, objects: Mapping[Ref, Object]) -> tuple[Ref, ...]:
        return engine_records.lookups(self, run, objects)

    def earlier_answer(self, run: Run, observed: Observed) -> str | None:
        return engine_records.earlier_answer(self, run, observed)

    def record(self, run: Run, result: Result, pod: PodReport) -> Create | None:
        return engine_records.record(self, run, decode(EngineCheckOutputs, result.outputs, "outputs"), pod)

    def verify(self, run: Run, result: Result) -> str | None:
        return None if decode(EngineCheckOutputs, result.outputs, "outputs").engine else "no engine was chosen"


def deciding_inputs(inputs: TrainingInputs) -> TrainingInputs:
    """Return the inputs of a training with only the values that decide about its engine; all others are the same for all runs."""
    osft, lora = inputs.osft, inputs.lora
    return replace(
        _ANY, **{name: getattr(inputs, name) for name in DECIDING}, osft=None if osft is None else _deciding_osft(osft),
        lora=None if lora is None else LoraInputs(quantization=lora.quantization),
    )  # fmt: skip


def _deciding_osft(osft: OsftInputs) -> OsftInputs:
    """Return the values of OSFT, with one ratio for all ratios between 0 and 1: engines treat them alike."""
    return replace(osft, unfreeze_rank_ratio=0.5) if 0 < osft.unfreeze_rank_ratio < 1 else osft
