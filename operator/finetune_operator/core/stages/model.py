"""Stage *model*: the base model."""

from __future__ import annotations

from typing import Any

from finetune_contract.codec import decode
from finetune_contract.documents import ModelInputs
from finetune_contract.result import ModelOutputs, Result
from finetune_operator.api import stages
from finetune_operator.core.manifests.pod import AWS_SECRET, HF_SECRET, PodNeeds, secrets
from finetune_operator.core.run import Run

from .base import ProgramStage, section


class ModelStage(ProgramStage):
    """Fetch the base model into the workspace and check that it is complete."""

    definition = stages.MODEL

    def inputs(self, run: Run) -> ModelInputs:
        spec = section(run, "model")
        return ModelInputs(uri=spec["uri"], revision=spec.get("revision"), trust_remote_code=spec["trustRemoteCode"])

    def pod(self, run: Run) -> PodNeeds:
        return PodNeeds(cpu="1", memory="4Gi", environment=secrets(section(run, "model").get("secretRef"), HF_SECRET, AWS_SECRET))

    def verify(self, run: Run, result: Result) -> str | None:
        found = decode(ModelOutputs, result.outputs, "outputs")
        return None if found.parameters > 0 else "the base model has no parameters"

    def status_fields(self, run: Run, result: Result) -> dict[str, Any]:
        found = decode(ModelOutputs, result.outputs, "outputs")
        return {"model": {"baseDigest": found.digest, "parameters": found.parameters}}
