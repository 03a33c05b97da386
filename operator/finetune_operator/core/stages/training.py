"""Stage *training*: a TrainJob, on one pod or many."""

from __future__ import annotations

from typing import Any

from finetune_contract.codec import decode, encode
from finetune_contract.documents import CheckpointInputs, LoraInputs, OsftInputs, TrainingInputs
from finetune_contract.result import HISTORY_LIMIT, Result, TrainingOutputs, thin
from finetune_operator.api import stages
from finetune_operator.core import naming
from finetune_operator.core.manifests.pod import ENTRY_PATH, HF_SECRET, PodNeeds, secrets
from finetune_operator.core.run import Run

from .base import ProgramStage, section


class TrainingStage(ProgramStage):
    """Train the model. Proof: every sample was used, and the written model can be loaded."""

    definition = stages.TRAINING

    def inputs(self, run: Run) -> TrainingInputs:
        spec = section(run, "training")
        osft, lora = spec.get("osft") or {}, spec.get("lora") or {}
        return TrainingInputs(
            algorithm=spec["algorithm"], engine=spec["engine"], epochs=spec["epochs"],
            effective_batch_size=spec["effectiveBatchSize"], max_tokens_per_gpu=spec["maxTokensPerGPU"],
            max_seq_len=spec["maxSeqLen"], learning_rate=float(spec["learningRate"]), micro_batch_size=spec.get("microBatchSize"),
            warmup_steps=spec["warmupSteps"], scheduler=spec["scheduler"], scheduler_args=dict(spec.get("schedulerArgs") or {}),
            seed=spec["seed"], unmask=spec["unmask"], gradient_checkpointing=spec["gradientCheckpointing"],
            trust_remote_code=section(run, "model")["trustRemoteCode"],
            osft=None if spec["algorithm"] != "osft" else OsftInputs(
                unfreeze_rank_ratio=float(osft["unfreezeRankRatio"]), target_patterns=tuple(osft["targetPatterns"]),
                trainable=osft["trainable"],
            ),
            lora=None if spec["algorithm"] != "lora" else LoraInputs(
                rank=lora["rank"], alpha=lora["alpha"], dropout=float(lora["dropout"]),
                target_modules=tuple(lora["targetModules"]), rslora=lora["rslora"], dora=lora["dora"],
                quantization=lora["quantization"], packing=lora["packing"],
            ),
            checkpoints=CheckpointInputs(per_epoch=spec["checkpoints"]["perEpoch"], keep=spec["checkpoints"].get("keep")),
        )  # fmt: skip

    def pod(self, run: Run) -> PodNeeds:
        spec = section(run, "training")
        resources = spec.get("resources") or {}
        entry = naming.entry_name(run.status["resolved"]["entryDigest"])
        return PodNeeds(
            cpu=resources.get("cpu"), memory=resources.get("memory"), ephemeral_storage=resources.get("ephemeralStorage"),
            gpus=spec["gpusPerWorker"], environment=(*secrets(None, HF_SECRET), *(spec.get("env") or ())),
            placement=spec.get("placement") or {},
            volumes=({"name": "entry", "configMap": {"name": entry}}, *(spec.get("volumes") or ())),
            mounts=({"name": "entry", "mountPath": ENTRY_PATH, "readOnly": True}, *(spec.get("volumeMounts") or ())),
            pull_secrets=tuple(spec.get("imagePullSecrets") or ()), shared_memory=spec.get("sharedMemory"),
        )  # fmt: skip

    def verify(self, run: Run, result: Result) -> str | None:
        found = decode(TrainingOutputs, result.outputs, "outputs")
        if found.samples_seen < found.expected_samples or found.expected_samples <= 0:
            return f"{found.samples_seen} of {found.expected_samples} samples were seen"
        return None if found.opened else "the written model was not opened again"

    def status_fields(self, run: Run, result: Result) -> dict[str, Any]:
        found = decode(TrainingOutputs, result.outputs, "outputs")
        adapter = {"adapterUri": model_uri(run, run.layout.adapter)} if found.adapter_digest else {}
        return {
            "model": {"digest": found.digest, "uri": model_uri(run, run.layout.final_model), **adapter},
            "metrics": {"training": dict(result.metrics)},
            "history": encode(thin(result.history, HISTORY_LIMIT)),
        }


def model_uri(run: Run, folder: str) -> str:
    """Return the URI of a folder of the workspace with a model, as the registry lists it."""
    base = str(run.status["resolved"]["volumeUri"]).replace(
        "{claim}", naming.workspace_claim(run)
    )  # a no-op where it is expanded
    return f"{base}/{folder}"
