"""Stage *model*: the base model."""

from __future__ import annotations

from typing import Any

from finetune_contract.codec import decode
from finetune_contract.documents import PULL_SECRET_VARIABLE, ModelInputs
from finetune_contract.result import ModelOutputs, Result
from finetune_contract.uris import HubId, ImageReference, ParsedUri, S3Location, parse_uri
from finetune_operator.api import stages
from finetune_operator.core.manifests.locations import claims_of, needs_of_locations
from finetune_operator.core.manifests.pod import (
    AWS_SECRET,
    AWS_SERVER,
    HF_SECRET,
    PULL_SECRET,
    PULL_SECRET_KEY,
    Json,
    PodNeeds,
    secret_variable,
    secrets,
)
from finetune_operator.core.resolved_spec import Model, Resources
from finetune_operator.core.run import Run

from .base import ProgramStage


class ModelStage(ProgramStage):
    """Download the base model into the workspace and check it."""

    definition = stages.MODEL
    OWNS = ("model.baseDigest", "model.parameters")

    def inputs(self, run: Run) -> ModelInputs:
        spec = run.resolved.model
        server = {"endpoint": spec.endpoint, "region": spec.region} if isinstance(_location(spec), S3Location) else {}
        # With format auto the rows decide: stage tokenization rejects messages without a template.
        has_messages = run.resolved.dataset.format not in ("auto", "text", "tokenised")
        return ModelInputs(
            uri=spec.uri,
            revision=spec.revision,
            trust_remote_code=spec.trust_remote_code,
            requires_chat_template=has_messages,
            **server,
        )

    def pod(self, run: Run) -> PodNeeds:
        spec = run.resolved.model
        return needs_of_locations((_location(spec),), spec.ca_ref, _secrets(spec), Resources("1", "4Gi"))

    def claims(self, run: Run) -> tuple[str, ...]:
        return claims_of((_location(run.resolved.model),))

    def verify(self, run: Run, result: Result) -> str | None:
        found = decode(ModelOutputs, result.outputs, "outputs")
        return None if found.parameters > 0 else "the base model has no parameters"

    def status_fields(self, run: Run, result: Result) -> dict[str, Any]:
        found = decode(ModelOutputs, result.outputs, "outputs")
        return {"model": {"baseDigest": found.digest, "parameters": found.parameters}}


def _location(spec: Model) -> ParsedUri:
    return parse_uri(spec.uri, "model")


def _secrets(spec: Model) -> tuple[Json, ...]:
    """Return the environment variables from Secrets: each location gets its own credentials only."""
    location = _location(spec)
    if isinstance(location, ImageReference):
        if spec.pull_secret_ref:
            return (secret_variable(PULL_SECRET_VARIABLE, spec.pull_secret_ref.name, PULL_SECRET_KEY, optional=False),)
        standard = secret_variable(PULL_SECRET_VARIABLE, PULL_SECRET[0], PULL_SECRET_KEY, optional=True)
        return (standard, *secrets(None, PULL_SECRET))
    if isinstance(location, S3Location):
        return secrets(spec.secret_ref, AWS_SECRET, AWS_SERVER)
    return secrets(spec.secret_ref, HF_SECRET) if isinstance(location, HubId) else ()
