"""Stage *training*: a TrainJob, on one pod or many."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from finetune_contract.codec import decode, encode
from finetune_contract.documents import (
    GPUS_VARIABLE,
    PROCESSES_VARIABLE,
    CheckpointInputs,
    LoraInputs,
    OsftInputs,
    TrainingInputs,
)
from finetune_contract.result import HISTORY_LIMIT, Result, TrainingOutputs, thin
from finetune_operator.api import stages
from finetune_operator.core import naming
from finetune_operator.core.manifests.pod import BUNDLE_PATH, PodNeeds
from finetune_operator.core.paths import Json
from finetune_operator.core.run import Run

from .base import ProgramStage


class TrainingStage(ProgramStage):
    """Train. Proof: every sample was processed, and the written model could be opened."""

    definition = stages.TRAINING
    OWNS = ("model.uri", "model.digest", "model.adapterUri", "metrics.training", "history", "engine")

    def inputs(self, run: Run) -> TrainingInputs:
        return training_inputs(run)

    def pod(self, run: Run) -> PodNeeds:
        spec = run.resolved.training
        needs = training_pod(run, spec.gpus_per_worker)
        processes = {"name": PROCESSES_VARIABLE, "value": str(spec.workers * spec.processes)}
        return replace(needs, environment=(*needs.environment, processes))

    def verify(self, run: Run, result: Result) -> str | None:
        found = decode(TrainingOutputs, result.outputs, "outputs")
        if found.samples_seen < found.expected_samples or found.expected_samples <= 0:
            return f"{found.samples_seen} of {found.expected_samples} samples were processed"
        return None if found.opened else "the written model was not opened"

    def status_fields(self, run: Run, result: Result) -> dict[str, Any]:
        found = decode(TrainingOutputs, result.outputs, "outputs")
        adapter = {"adapterUri": model_uri(run, run.layout.adapter)} if found.adapter_digest else {}
        return {
            "model": {"digest": found.digest, "uri": model_uri(run, run.layout.final_model), **adapter},
            "metrics": {"training": dict(result.metrics)},
            "history": encode(thin(result.history, HISTORY_LIMIT)),
            "engine": {"name": found.engine, "reason": found.engine_reason[:512], "versions": dict(found.versions)},
        }


def training_inputs(run: Run) -> TrainingInputs:
    """Return the input document of stage *training*."""
    spec = run.resolved.training
    osft, lora = spec.osft, spec.lora
    return TrainingInputs(
        algorithm=spec.algorithm, engine=spec.engine, epochs=spec.epochs, effective_batch_size=spec.effective_batch_size,
        max_tokens_per_gpu=spec.max_tokens_per_gpu, max_seq_len=spec.max_seq_len, learning_rate=spec.learning_rate,
        micro_batch_size=spec.micro_batch_size, warmup_steps=spec.warmup_steps, scheduler=spec.scheduler,
        scheduler_args=dict(spec.scheduler_args), seed=spec.seed, unmask=spec.unmask,
        liger=spec.liger, sharding=spec.sft.sharding if spec.sft and spec.algorithm == "sft" else "NO_SHARD",
        gradient_checkpointing=spec.gradient_checkpointing, trust_remote_code=run.resolved.model.trust_remote_code,
        osft=None if osft is None else OsftInputs(
            unfreeze_rank_ratio=osft.unfreeze_rank_ratio, target_patterns=osft.target_patterns, trainable=osft.trainable,
            memory_efficient_init=osft.memory_efficient_init,
        ),
        lora=None if lora is None else LoraInputs(
            rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, target_modules=lora.target_modules, rslora=lora.rslora,
            dora=lora.dora, quantization=lora.quantization, packing=lora.packing,
        ),
        checkpoints=CheckpointInputs(per_epoch=spec.checkpoints.per_epoch, keep=spec.checkpoints.keep),
    )  # fmt: skip


def training_pod(run: Run, gpus: int) -> PodNeeds:
    """Return what the pods of a TrainJob with ``gpus`` GPUs each need."""
    spec = run.resolved.training
    bundle = naming.bundle_name(run.status["resolved"]["entryDigest"])
    own: tuple[Json, ...] = ({"name": GPUS_VARIABLE, "value": str(gpus)},)
    return PodNeeds(
        resources=spec.resources, gpus=gpus, environment=(*spec.env, *own),
        placement=spec.placement, volumes=({"name": "training-bundle", "configMap": {"name": bundle}}, *spec.volumes),
        mounts=({"name": "training-bundle", "mountPath": BUNDLE_PATH, "readOnly": True}, *spec.volume_mounts),
        pull_secrets=spec.image_pull_secrets, shared_memory=spec.shared_memory,
    )  # fmt: skip


def model_uri(run: Run, folder: str) -> str:
    """Return the URI of a folder of the workspace, for the registry."""
    base = str(run.status["resolved"]["volumeUri"]).replace(
        "{claim}", naming.workspace_claim(run)
    )  # a no-op where it is expanded
    return f"{base}/{folder}"
