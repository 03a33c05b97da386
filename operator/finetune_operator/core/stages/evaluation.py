"""Stages *evaluation* and *baseline*: the same measurements of the fine-tuned model and of the base model."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from finetune_contract.codec import decode
from finetune_contract.documents import KEEP_METRICS_VARIABLE, EvaluationInputs
from finetune_contract.result import EvaluationOutputs, Result
from finetune_operator.api import reasons, stages
from finetune_operator.core.gate import compares
from finetune_operator.core.manifests.pod import HF_SECRET, TASK_FILES_PATH, PodNeeds, secrets
from finetune_operator.core.observation import Observed
from finetune_operator.core.run import Run

from .base import ProgramStage, section
from .gate import requirements

_GENERATION = {
    "temperature": "temperature", "topP": "top_p", "topK": "top_k", "doSample": "do_sample", "maxTokens": "max_gen_toks",
}  # fmt: skip
"""Fields of ``evaluation.generation``, and their names in lm-eval."""


class EvaluationStage(ProgramStage):
    """Measure the fine-tuned model."""

    definition = stages.EVALUATION
    subject: ClassVar[Literal["final", "base"]] = "final"

    def skipped(self, run: Run) -> str | None:
        return None if section(run, "evaluation")["enabled"] else reasons.EVALUATION_DISABLED

    def allow_failure(self, run: Run) -> bool:
        return bool(section(run, "evaluation")["onFailure"] == "Continue")

    def inputs(self, run: Run) -> EvaluationInputs:
        spec = section(run, "evaluation")
        generation = spec.get("generation") or {}
        return EvaluationInputs(
            subject=self.subject, tasks=tuple(spec["tasks"]), task_files="taskFiles" in spec, holdout=spec["holdout"],
            backend=spec["backend"], limit=spec.get("limit"), batch_size=spec.get("batchSize", "auto"), fewshot=spec.get("fewshot"),
            system_instruction=spec.get("systemInstruction"),
            generation={_GENERATION[name]: value for name, value in generation.items() if name in _GENERATION},
            until=tuple(generation.get("until") or ()), model_args=dict(spec.get("modelArgs") or {}),
            log_samples=spec["logSamples"], verbosity=spec["verbosity"], seed=section(run, "training")["seed"],
            trust_remote_code=section(run, "model")["trustRemoteCode"],
        )  # fmt: skip

    def pod(self, run: Run) -> PodNeeds:
        spec = section(run, "evaluation")
        resources = spec.get("resources") or {}
        files = task_files(run)
        variables = [*files["environment"]]
        wanted = ",".join(sorted({requirement["metric"] for requirement in requirements(run)}))
        if wanted:
            variables.append({"name": KEEP_METRICS_VARIABLE, "value": wanted})
        return PodNeeds(
            cpu=resources.get("cpu"), memory=resources.get("memory"), ephemeral_storage=resources.get("ephemeralStorage"),
            gpus=spec.get("gpus", 0), environment=(*secrets(spec.get("secretRef"), HF_SECRET), *variables),
            placement=spec.get("placement") or {}, volumes=files["volumes"], mounts=files["mounts"],
        )  # fmt: skip

    def verify(self, run: Run, result: Result) -> str | None:
        decode(EvaluationOutputs, result.outputs, "outputs")
        return None if any(not key.endswith("_stderr") for key in result.metrics if "." in key) else "there is no score"

    def status_fields(self, run: Run, result: Result) -> dict[str, Any]:
        found = decode(EvaluationOutputs, result.outputs, "outputs")
        return {"metrics": {self.name: dict(result.metrics), "higherIsBetter": dict(found.higher_is_better)}}


class BaselineStage(EvaluationStage):
    """Measure the base model beside training. It starts once training has its pods, so that it never takes the only GPU."""

    definition = stages.BASELINE
    subject = "base"

    def skipped(self, run: Run) -> str | None:
        asked = section(run, "evaluation")["baseline"] or compares(requirements(run))
        return super().skipped(run) or (None if asked else reasons.BASELINE_NOT_ASKED)

    def ready(self, run: Run, observed: Observed) -> bool:
        training = run.stages["training"]
        return training.ended or any(pod.phase != "Pending" for pod in observed.pods.get("training", ()))


def task_files(run: Run) -> dict[str, Any]:
    """Return environment, volumes and mounts of the ConfigMap with the user's task files; empty without one."""
    evaluation = section(run, "evaluation")
    files = evaluation.get("taskFiles") if evaluation["enabled"] else None
    if not files:
        return {"environment": (), "volumes": (), "mounts": ()}
    return {
        "environment": ({"name": "FINETUNE_TASK_FILES", "value": TASK_FILES_PATH},),
        "volumes": ({"name": "tasks", "configMap": {"name": files["name"]}},),
        "mounts": ({"name": "tasks", "mountPath": TASK_FILES_PATH, "readOnly": True},),
    }
