"""Stages *evaluation* and *baseline*: the same tasks for the fine-tuned model and for the base model."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from finetune_contract.codec import decode
from finetune_contract.documents import GPUS_VARIABLE, KEEP_METRICS_VARIABLE, TASK_CODE_VARIABLE, EvaluationInputs, Scalar
from finetune_contract.result import EvaluationOutputs, Result
from finetune_operator.api import reasons, stages
from finetune_operator.core.gate import compares
from finetune_operator.core.isolation import can_change_workspace
from finetune_operator.core.manifests.pod import HF_SECRET, TASK_FILES_PATH, PodNeeds, secrets
from finetune_operator.core.observation import Observed
from finetune_operator.core.resolved_spec import Generation
from finetune_operator.core.run import Run

from .base import ProgramStage


class EvaluationStage(ProgramStage):
    """Measure the fine-tuned model."""

    definition = stages.EVALUATION
    OWNS: ClassVar[tuple[str, ...]] = ("metrics.evaluation",)
    subject: ClassVar[Literal["final", "base"]] = "final"

    def skipped(self, run: Run) -> str | None:
        return None if run.resolved.evaluation.enabled else reasons.EVALUATION_DISABLED

    def allow_failure(self, run: Run) -> bool:
        return run.resolved.evaluation.on_failure == "Continue"

    def inputs(self, run: Run) -> EvaluationInputs:
        spec = run.resolved.evaluation
        return EvaluationInputs(
            subject=self.subject, tasks=spec.tasks, task_files=spec.task_files is not None, holdout=spec.holdout,
            backend=spec.backend, limit=spec.limit, batch_size=spec.batch_size or "auto", fewshot=spec.fewshot,
            system_instruction=spec.system_instruction, generation=_generation(spec.generation), until=spec.generation.until,
            model_args=dict(spec.model_args), log_samples=spec.log_samples, verbosity=spec.verbosity, seed=run.resolved.training.seed,
            trust_remote_code=run.resolved.model.trust_remote_code,
        )  # fmt: skip

    def pod(self, run: Run) -> PodNeeds:
        spec = run.resolved.evaluation
        files = task_files(run)
        variables = [*files["environment"], {"name": GPUS_VARIABLE, "value": str(spec.gpus)}]
        if run.status["resolved"].get("taskCode") is False:
            variables.append({"name": TASK_CODE_VARIABLE, "value": "0"})
        kept = ",".join(sorted({requirement.metric for requirement in run.resolved.gate.requirements}))
        if kept:
            variables.append({"name": KEEP_METRICS_VARIABLE, "value": kept})
        return PodNeeds(
            resources=spec.resources, gpus=spec.gpus, environment=(*secrets(spec.secret_ref, HF_SECRET), *variables),
            placement=spec.placement, volumes=files["volumes"], mounts=files["mounts"],
        )  # fmt: skip

    def verify(self, run: Run, result: Result) -> str | None:
        found = decode(EvaluationOutputs, result.outputs, "outputs")
        measured = run.stages.get(self.reads[0])
        if measured is not None and measured.output_digest != found.model_digest:
            return f"the scores are those of another model than that of stage {measured.name}"
        return None if any(not key.endswith("_stderr") for key in result.metrics if "." in key) else "there is no score"

    def status_fields(self, run: Run, result: Result) -> dict[str, Any]:
        found = decode(EvaluationOutputs, result.outputs, "outputs")
        return {"metrics": {self.name: dict(result.metrics), "higherIsBetter": dict(found.higher_is_better)}}


class BaselineStage(EvaluationStage):
    """Measure the base model in parallel with training, once the pods of training run: it must not take their GPUs.

    If training can change the base model in the workspace meanwhile, the baseline starts when training has ended.
    """

    definition = stages.BASELINE
    OWNS: ClassVar[tuple[str, ...]] = ("metrics.baseline",)
    subject = "base"

    def skipped(self, run: Run) -> str | None:
        asked = run.resolved.evaluation.baseline or compares(run.resolved.gate.requirements)
        return super().skipped(run) or (None if asked else reasons.BASELINE_NOT_REQUESTED)

    def ready(self, run: Run, observed: Observed) -> bool:
        training = run.stages.get(stages.TRAINING.name)
        if training is None or training.ended:
            return True
        running = any(pod.phase != "Pending" for pod in observed.pods.get(stages.TRAINING.name, ()))
        return running and not can_change_workspace(run)


def task_files(run: Run) -> dict[str, Any]:
    """Return the environment, volumes and mounts for the ConfigMap with the user's task files; empty ones without it."""
    evaluation = run.resolved.evaluation
    files = evaluation.task_files if evaluation.enabled else None
    if files is None:
        return {"environment": (), "volumes": (), "mounts": ()}
    return {
        "environment": ({"name": "FINETUNE_TASK_FILES", "value": TASK_FILES_PATH},),
        "volumes": ({"name": "tasks", "configMap": {"name": files.name}},),
        "mounts": ({"name": "tasks", "mountPath": TASK_FILES_PATH, "readOnly": True},),
    }


def _generation(spec: Generation) -> dict[str, Scalar]:
    """Return the values for generation by the names that lm-eval gives them."""
    values = {
        "temperature": spec.temperature, "top_p": spec.top_p, "top_k": spec.top_k, "do_sample": spec.do_sample,
        "max_gen_toks": spec.max_tokens,
    }  # fmt: skip
    return {name: value for name, value in values.items() if value is not None}
