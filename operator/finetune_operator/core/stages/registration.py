"""Stage *registration*: the model, with its numbers and its lineage, into the registry."""

from __future__ import annotations

from typing import Any

from finetune_contract.codec import decode
from finetune_contract.documents import RegistrationInputs
from finetune_contract.result import RegistrationOutputs, Result
from finetune_operator.api import reasons
from finetune_operator.core.manifests.pod import PodNeeds
from finetune_operator.core.paths import leaves
from finetune_operator.core.run import Run

from .base import Stage, section
from .training import model_uri

_SHOWN_SECTIONS = ("dataset", "model", "training", "evaluation")
"""The sections whose values a registry shows as parameters."""
_NOT_SHOWN = ("secretRef", "pullSecretRef", "caRef", "placement", "imagePullSecrets")
"""What says nothing about the model."""
_LEFT_OUT = (reasons.EVALUATION_DISABLED, reasons.BASELINE_NOT_ASKED)


class RegistrationStage(Stage):
    """Register, and read back what was registered."""

    name = "registration"
    program = "registration"
    condition = "Registered"
    after = ("training", "evaluation", "baseline")
    reads = ("dataset", "model", "training", "evaluation", "baseline")

    def skipped(self, run: Run) -> str | None:
        return None if section(run, "registry").get("kind") else reasons.REGISTRY_NOT_CONFIGURED

    def inputs(self, run: Run) -> RegistrationInputs:
        wish = section(run, "registry")
        return RegistrationInputs(
            kind=wish["kind"], name=wish["name"], version=wish["version"], model_uri=model_uri(run),
            on_existing=wish["onExisting"], author=wish.get("author"), description=wish.get("description"), format=wish["format"],
            format_version=wish["formatVersion"], alias=wish.get("alias"), parameters=_parameters(run),
            results={name: run.layout.newest_result(name) for name in self.reads if run.stages[name].reason not in _LEFT_OUT},
        )  # fmt: skip

    def pod(self, run: Run) -> PodNeeds:
        return PodNeeds(cpu="500m", memory="1Gi")

    def prove(self, run: Run, result: Result) -> str | None:
        found = decode(RegistrationOutputs, result.outputs, "outputs")
        return None if found.read_back else "the registry's entry was not read back"

    def tell(self, run: Run, result: Result) -> dict[str, Any]:
        found = decode(RegistrationOutputs, result.outputs, "outputs")
        entry = {
            "kind": found.kind, "name": found.name, "version": found.version, "registryVersion": found.registry_version,
            "runId": found.run_id, "url": found.url,
        }  # fmt: skip
        return {"registry": {key: value for key, value in entry.items() if value is not None}}

    def output_digest(self, result: Result) -> str | None:
        return None


def _parameters(run: Run) -> dict[str, str | int | float | bool]:
    """The run's values, flat, as far as they are scalars or lists of them."""
    flat: dict[str, str | int | float | bool] = {}
    for name in _SHOWN_SECTIONS:
        values = {key: value for key, value in section(run, name).items() if key not in _NOT_SHOWN}
        for path, value in leaves(values, name):
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                flat[path] = ",".join(value)
            elif isinstance(value, (str, int, float, bool)):
                flat[path] = value
    return flat
