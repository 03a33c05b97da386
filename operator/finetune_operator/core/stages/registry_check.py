"""Stage *registry-check*: with ``registry.onExisting: Fail``, check before training that the version is free."""

from __future__ import annotations

from finetune_contract.codec import decode
from finetune_contract.documents import RegistryCheckInputs
from finetune_contract.result import RegistryCheckOutputs, Result
from finetune_operator.api import reasons, stages
from finetune_operator.core.manifests.pod import PodNeeds
from finetune_operator.core.run import Run

from .base import ProgramStage, section
from .registration import registry_address, registry_needs


class RegistryCheckStage(ProgramStage):
    """Check that the registry does not have the version yet."""

    definition = stages.REGISTRY_CHECK

    def skipped(self, run: Run) -> str | None:
        spec = section(run, "registry")
        return None if spec.get("kind") and spec["onExisting"] == "Fail" else reasons.CHECK_NOT_ASKED

    def inputs(self, run: Run) -> RegistryCheckInputs:
        spec = section(run, "registry")
        return RegistryCheckInputs(spec["kind"], spec["name"], spec["version"], registry_address(run))

    def pod(self, run: Run) -> PodNeeds:
        return registry_needs(run)

    def verify(self, run: Run, result: Result) -> str | None:
        return None if decode(RegistryCheckOutputs, result.outputs, "outputs").free else "the registry was not asked"
