"""Discovery of the served kinds and of the TrainJob schema of Kubeflow Trainer.

The custom resources of Trainer contain no release, so its TrainJob schema is detected from the OpenAPI document (see ``trainjob`` in
:mod:`finetune_operator.core.manifests`). It can change while the operator runs, when the cluster is upgraded.
"""

from __future__ import annotations

from typing import Any

from finetune_operator.api.kinds import FINETUNERUN, TRAINJOB, Kind
from finetune_operator.core.paths import lookup
from finetune_operator.core.settings import Trainer
from finetune_operator.loop.errors import NotFound

from .client import ApiServer

_POD_PATCH = (
    "runtimePatches.items.properties.trainingRuntimeSpec.properties.template.properties.spec.properties.replicatedJobs.items"
    ".properties.template.properties.spec.properties.template.properties.spec.properties"
)
"""Path in the schema to the pod fields that a TrainJob can override, from Trainer 2.2 on."""


async def is_served(server: ApiServer, kind: Kind) -> bool:
    """Return whether the API server serves the kind in the version that the operator uses."""
    path = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    try:
        resources = await server.document(path)
    except NotFound:
        return False
    return any(resource["name"] == kind.plural for resource in resources.get("resources") or ())


async def require_own_kind(server: ApiServer) -> None:
    """Verify that FineTuneRun is installed: kopf would wait for it without a message.

    Raises:
        NotFound: it is not installed.
    """
    if not await is_served(server, FINETUNERUN):
        raise NotFound(f"the cluster does not serve {FINETUNERUN.plural}.{FINETUNERUN.group}; apply the files in crds/")


async def detect_trainer(server: ApiServer) -> Trainer | None:
    """Return the TrainJob schema of the installed Trainer; ``None`` without Trainer."""
    try:
        schemas = await server.document(f"/openapi/v3/apis/{TRAINJOB.group}/{TRAINJOB.version}")
    except (NotFound, ValueError):  # shortly after a CRD is deleted, the response is 200 without content
        return None
    for schema in (lookup(schemas, "components.schemas") or {}).values():
        types = schema.get("x-kubernetes-group-version-kind") or ()
        if any(type_["kind"] == TRAINJOB.name for type_ in types):
            return trainer_of(lookup(schema, "properties.spec.properties") or {})
    return None


def trainer_of(fields: dict[str, Any]) -> Trainer:
    """Return the variant of the TrainJob schema.

    Args:
        fields: the properties of ``TrainJob.spec``.
    """
    if "runtimePatches" in fields:
        pod = lookup(fields, _POD_PATCH) or {}
        return Trainer("runtimePatches", "securityContext" in pod, "terminationGracePeriodSeconds" in pod)
    for overrides in ("podTemplateOverrides", "podSpecOverrides"):
        if overrides in fields:
            return Trainer(overrides, pod_security=False, grace_period=False)
    return Trainer("unknown", pod_security=False, grace_period=False)
