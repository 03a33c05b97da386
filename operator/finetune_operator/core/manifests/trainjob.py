"""TrainJobs for the supported schemas of Kubeflow Trainer.

The schema of ``trainer.kubeflow.org/v1alpha1`` changed between releases: Trainer 2.1 (OpenShift AI 3.2 to 3.5) has
``podTemplateOverrides``; 2.2 and later (OpenShift AI 3.6) have ``runtimePatches``. The pod fields that they accept differ, too.
"""

from __future__ import annotations

from dataclasses import replace

from finetune_contract.progress import EXPORT_SECONDS, METRICS_PORT, METRICS_PORT_VARIABLE
from finetune_operator.api.finetunerun import GROUP
from finetune_operator.api.kinds import TRAINJOB
from finetune_operator.api.stages import TRAINING
from finetune_operator.core import naming
from finetune_operator.core.run import Run, StageStatus
from finetune_operator.core.settings import Trainer

from . import bootstrap, pod, volumes
from .children import TERMINATION_GRACE_SECONDS, child
from .pod import Json, PodNeeds

PATCH_MANAGER = f"{GROUP}/operator"
NODE = naming.TRAINJOB_CONTAINER
"""Name of the replicated job and of its container, in every runtime."""
TRACKING = {
    "trainer.opendatahub.io/progression-tracking": "true",
    "trainer.opendatahub.io/metrics-port": str(METRICS_PORT),
    "trainer.opendatahub.io/metrics-poll-interval": f"{EXPORT_SECONDS}s",
}
"""Annotations with which OpenShift AI polls the progress that rank 0 serves, and shows it in its dashboard.

The port is not among the ports of the container: no supported schema of a TrainJob has that field, and the NetworkPolicy that OpenShift AI
creates for each TrainJob is made from the annotation.
"""


def trainjob(run: Run, stage_status: StageStatus, needs: PodNeeds, shape: Trainer) -> Json:
    """Return the TrainJob of an attempt: that of stage *training*, or that of the engine check, which has one process and no GPU."""
    if stage_status.name != TRAINING.name:
        return _trainjob(run, stage_status, needs, shape, _nodes(1, 1, needs))
    training = run.resolved.training
    needs = replace(needs, environment=(*needs.environment, {"name": METRICS_PORT_VARIABLE, "value": str(METRICS_PORT)}))
    job = _trainjob(run, stage_status, needs, shape, _nodes(training.workers, training.processes, needs))
    job["metadata"]["annotations"].update(TRACKING)
    return job


def _nodes(count: int, processes: int, needs: PodNeeds) -> Json:
    """Return the nodes and their resources, with 0 GPUs if none are needed.

    Trainer 2.3 merges the resources with those of the runtime, which may have GPUs that the training would not use.
    """
    resources = {section: {pod.GPU: "0", **amounts} for section, amounts in needs.requirements.items()}
    return {"numNodes": count, "numProcPerNode": processes, **({"resourcesPerNode": resources} if resources else {})}


def _trainjob(run: Run, stage_status: StageStatus, needs: PodNeeds, shape: Trainer, nodes: Json) -> Json:
    training = run.resolved.training
    trainer: Json = {
        "command": bootstrap.command(run.status["resolved"]["entryDigest"]),
        "env": pod.environment(run, stage_status, needs, training.image),
        **nodes,
    }
    if training.image:
        trainer["image"] = training.image
    template = {"metadata": pod.pod_metadata(run, stage_status, needs), "spec": _pod_spec(run, stage_status, needs, shape)}
    overrides = _patches(template) if shape.overrides == "runtimePatches" else _overrides(template)
    return {
        **child(TRAINJOB, run, stage_status),
        "spec": {
            "runtimeRef": {"apiGroup": TRAINJOB.group, "kind": "ClusterTrainingRuntime", "name": training.runtime_ref},
            "trainer": trainer,
            shape.overrides: overrides,
        },
    }


def _pod_spec(run: Run, stage_status: StageStatus, needs: PodNeeds, shape: Trainer) -> Json:
    """Return the changes to the runtime's pod, as far as this Trainer accepts them."""
    container: Json = {"name": NODE, "volumeMounts": volumes.mounts(run, stage_status, needs)}
    spec: Json = {"volumes": volumes.volumes(run, stage_status, needs), "containers": [container], **pod.placed(run, needs)}
    if shape.pod_security:
        container["securityContext"] = pod.container_security()
        if pod.volume_group(run):
            spec["securityContext"] = pod.volume_group(run)
    if shape.grace_period:
        spec["terminationGracePeriodSeconds"] = TERMINATION_GRACE_SECONDS
    return spec


def _patches(template: Json) -> list[Json]:
    replicated = {"name": NODE, "template": {"spec": {"template": template}}}
    return [{"manager": PATCH_MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [replicated]}}}}]


def _overrides(template: Json) -> list[Json]:
    return [{"targetJobs": [{"name": NODE}], **template}]
