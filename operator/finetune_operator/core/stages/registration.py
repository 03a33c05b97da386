"""Stage *registration*: registers the model with its metrics and its lineage."""

from __future__ import annotations

from typing import Any

from finetune_contract.codec import decode
from finetune_contract.documents import (
    GATE_VARIABLE,
    REGISTRY_CA_VARIABLE,
    REGISTRY_HOST_VARIABLE,
    RegistrationInputs,
    RegistryKind,
)
from finetune_contract.hosts import may_receive_token
from finetune_contract.result import RegistrationOutputs, Result
from finetune_operator.api import reasons, stages
from finetune_operator.core.hosts import registry_url
from finetune_operator.core.manifests.pod import REGISTRY_CA_PATH, REGISTRY_SECRET, PodNeeds, secrets
from finetune_operator.core.paths import leaves
from finetune_operator.core.resolved_spec import Resources
from finetune_operator.core.run import Run

from .base import ProgramStage
from .training import model_uri

_PARAMETER_SECTIONS = ("dataset", "model", "training", "evaluation")
"""The sections whose values are parameters of the registered model."""
_NOT_PARAMETERS = ("secretRef", "pullSecretRef", "caRef", "placement", "imagePullSecrets")
"""Fields without an effect on the model."""
_LEFT_OUT = (reasons.EVALUATION_DISABLED, reasons.BASELINE_NOT_REQUESTED)


class RegistrationStage(ProgramStage):
    """Register the model, and read the entry back."""

    definition = stages.REGISTRATION
    OWNS = ("registry",)

    def skipped(self, run: Run) -> str | None:
        return None if run.resolved.registry.kind else reasons.REGISTRY_NOT_CONFIGURED

    def inputs(self, run: Run) -> RegistrationInputs:
        spec = run.resolved.registry
        return RegistrationInputs(
            kind=registry_kind(run), name=spec.name, version=spec.version, model_uri=model_uri(run, run.layout.final_model),
            address=registry_url(run.resolved.registry), on_existing=spec.on_existing, author=spec.author, description=spec.description,
            format=spec.format, format_version=spec.format_version, alias=spec.alias, parameters=_parameters(run),
            results={name: run.layout.newest_result(name) for name in self.reads if name in run.stages and run.stages[name].reason not in _LEFT_OUT},
        )  # fmt: skip

    def pod(self, run: Run) -> PodNeeds:
        verdict = (run.status.get("gate") or {}).get("passed")
        gate = "Rejected" if verdict is False else "Passed" if verdict else None
        return registry_needs(run, *([{"name": GATE_VARIABLE, "value": gate}] if gate else ()))

    def verify(self, run: Run, result: Result) -> str | None:
        found = decode(RegistrationOutputs, result.outputs, "outputs")
        return None if found.read_back else "the registry's entry was not read back"

    def status_fields(self, run: Run, result: Result) -> dict[str, Any]:
        found = decode(RegistrationOutputs, result.outputs, "outputs")
        entry = {
            "kind": found.kind, "name": found.name, "version": found.version, "registryVersion": found.registry_version,
            "runId": found.run_id, "url": found.url,
        }  # fmt: skip
        return {"registry": {key: value for key, value in entry.items() if value is not None}}

    def output_digest(self, result: Result) -> str | None:
        return None


def registry_kind(run: Run) -> RegistryKind:
    """Return the kind of the registry of a run that has one."""
    kind = run.resolved.registry.kind
    assert kind is not None, "the stage is skipped without a registry"  # for the type checker
    return kind


def registry_needs(run: Run, *environment: dict[str, Any]) -> PodNeeds:
    """Return what a pod needs for requests to the registry: the token and the CA bundle."""
    spec = run.resolved.registry
    bundle = spec.ca_ref
    tokens = _tokens(run)
    if bundle is None:
        return PodNeeds(resources=Resources("500m", "1Gi"), environment=(*tokens, *environment))
    path = f"{REGISTRY_CA_PATH}/{bundle.key}"
    return PodNeeds(
        resources=Resources("500m", "1Gi"), environment=(*tokens, {"name": REGISTRY_CA_VARIABLE, "value": path}, *environment),
        volumes=({"name": "registry-ca", "configMap": {"name": bundle.name}},),
        mounts=({"name": "registry-ca", "mountPath": REGISTRY_CA_PATH, "readOnly": True},),
    )  # fmt: skip


def _tokens(run: Run) -> tuple[dict[str, Any], ...]:
    """Return the variables with the token and the host that it is for, nothing where the address must not receive a token."""
    spec, url = run.resolved.registry, registry_url(run.resolved.registry)
    if url is None or not may_receive_token(url, run.status["resolved"].get("allowedHosts") or {}):
        return ()
    secret = spec.secret_ref.name if spec.secret_ref else REGISTRY_SECRET[0]
    return *secrets(spec.secret_ref, REGISTRY_SECRET), *secrets(None, (secret, (REGISTRY_HOST_VARIABLE,)))


def _parameters(run: Run) -> dict[str, str | int | float | bool]:
    """Return the values of the run that are scalars or lists of strings, by path."""
    flat: dict[str, str | int | float | bool] = {}
    for name in _PARAMETER_SECTIONS:
        values = {key: value for key, value in run.resolved.values[name].items() if key not in _NOT_PARAMETERS}
        for path, value in leaves(values, name):
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                flat[path] = ",".join(value)
            elif isinstance(value, (str, int, float, bool)):
                flat[path] = value
    return flat
