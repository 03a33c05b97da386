"""What the cluster serves: our own resource, and Kubeflow Trainer in one of its shapes.

The custom resources of Trainer carry no release, so its shape is read from the schema that is served (``trainjob`` in
:mod:`finetune_operator.core.manifests`); it may change under us when a cluster is upgraded.
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
"""Where the schema says which fields of a pod a TrainJob may change, from Trainer 2.2 on."""


async def is_served(server: ApiServer, kind: Kind) -> bool:
    """Whether the API server knows the kind in the version that we speak."""
    path = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    try:
        found = await server.document(path)
    except NotFound:
        return False
    return any(resource["name"] == kind.plural for resource in found.get("resources") or ())


async def require_own_kind(server: ApiServer) -> None:
    """Make sure that FineTuneRun is installed: kopf would wait for it in silence.

    Raises:
        NotFound: it is not.
    """
    if not await is_served(server, FINETUNERUN):
        raise NotFound(f"the cluster does not serve {FINETUNERUN.plural}.{FINETUNERUN.group}; apply the files in crds/")


async def detect_trainer(server: ApiServer) -> Trainer | None:
    """The shape of the Trainer at hand; ``None`` where there is none."""
    try:
        found = await server.document(f"/openapi/v3/apis/{TRAINJOB.group}/{TRAINJOB.version}")
    except (NotFound, ValueError):  # for a moment after a definition is gone, the server answers 200 and not a byte
        return None
    for schema in (lookup(found, "components.schemas") or {}).values():
        types = schema.get("x-kubernetes-group-version-kind") or ()
        if any(type_["kind"] == TRAINJOB.name for type_ in types):
            return trainer_of(lookup(schema, "properties.spec.properties") or {})
    return None


def trainer_of(fields: dict[str, Any]) -> Trainer:
    """The shape, from the schema of ``TrainJob.spec``."""
    if "runtimePatches" in fields:
        pod = lookup(fields, _POD_PATCH) or {}
        return Trainer("runtimePatches", "securityContext" in pod, "terminationGracePeriodSeconds" in pod)
    for overrides in ("podTemplateOverrides", "podSpecOverrides"):
        if overrides in fields:
            return Trainer(overrides, pod_security=False, grace_period=False)
    return Trainer("unknown", pod_security=False, grace_period=False)
