"""Stage *registry-check*: with ``registry.onExisting: Fail``, checks before training that the version is free."""

from __future__ import annotations

from finetune_contract.codec import decode
from finetune_contract.documents import RegistryCheckInputs
from finetune_contract.result import RegistryCheckOutputs, Result
from finetune_operator.api import reasons, stages
from finetune_operator.core.hosts import registry_url
from finetune_operator.core.manifests.pod import PodNeeds
from finetune_operator.core.run import Run

from .base import ProgramStage
from .registration import registry_kind, registry_needs


class RegistryCheckStage(ProgramStage):
    """Check the version in the registry."""

    definition = stages.REGISTRY_CHECK

    def skipped(self, run: Run) -> str | None:
        spec = run.resolved.registry
        return None if spec.kind and spec.on_existing == "Fail" else reasons.CHECK_NOT_REQUESTED

    def inputs(self, run: Run) -> RegistryCheckInputs:
        spec = run.resolved.registry
        return RegistryCheckInputs(registry_kind(run), spec.name, spec.version, registry_url(run.resolved.registry))

    def pod(self, run: Run) -> PodNeeds:
        return registry_needs(run)

    def verify(self, run: Run, result: Result) -> str | None:
        return None if decode(RegistryCheckOutputs, result.outputs, "outputs").free else "the version was not checked"
