"""Stage *model*: the base model."""

from __future__ import annotations

from typing import Any

from finetune_contract.codec import decode
from finetune_contract.documents import ModelInputs
from finetune_contract.result import ModelOutputs, Result
from finetune_operator.api import stages
from finetune_operator.core.manifests.pod import AWS_SECRET, HF_SECRET, PodNeeds, secrets
from finetune_operator.core.resolved_spec import Resources
from finetune_operator.core.run import Run

from .base import ProgramStage


class ModelStage(ProgramStage):
    """Download the base model into the workspace and check it."""

    definition = stages.MODEL
    OWNS = ("model.baseDigest", "model.parameters")

    def inputs(self, run: Run) -> ModelInputs:
        spec = run.resolved.model
        # With format auto the rows decide: stage tokenization rejects messages without a template.
        has_messages = run.resolved.dataset.format not in ("auto", "text", "tokenised")
        return ModelInputs(
            uri=spec.uri, revision=spec.revision, trust_remote_code=spec.trust_remote_code, requires_chat_template=has_messages
        )

    def pod(self, run: Run) -> PodNeeds:
        return PodNeeds(
            resources=Resources("1", "4Gi"), environment=secrets(run.resolved.model.secret_ref, HF_SECRET, AWS_SECRET)
        )

    def verify(self, run: Run, result: Result) -> str | None:
        found = decode(ModelOutputs, result.outputs, "outputs")
        return None if found.parameters > 0 else "the base model has no parameters"

    def status_fields(self, run: Run, result: Result) -> dict[str, Any]:
        found = decode(ModelOutputs, result.outputs, "outputs")
        return {"model": {"baseDigest": found.digest, "parameters": found.parameters}}
