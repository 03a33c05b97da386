"""Pods of a run that the API server rejects: the run is rejected before it starts, and the message names the run's field.

Nothing is created: a real API server answers the dry run, unless the run's own rules name the field already. Each input was once accepted, and its run then stayed in Training without a word.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from control_planes import connected, shared
from controlplane.cluster import ControlPlane
from finetune_operator.core.images import OF_JOBS
from finetune_operator.core.plan import plan
from finetune_operator.core.run import Run
from finetune_operator.core.settings import Settings
from finetune_operator.local.store import Store
from finetune_operator.loop.contents import ConfigMapContents
from finetune_operator.loop.lineage import Lineage
from finetune_operator.loop.observe import Caches, observe
from finetune_operator.loop.warning_events import WarningEvents
from reports.report import Report, reports
from world import NOW

PLACE = Settings(mode="cluster", operator_version="0.1.0", images=dict.fromkeys(OF_JOBS, "image"), bundle_digest="e" * 64)
JOBS = "kubernetes-sigs/jobset#1024"  # "failed to create the worker job, but no events"


def training(**fields: Any) -> dict[str, Any]:
    return {"dataset": {"uri": "org/chat"}, "training": {"gpusPerWorker": 0, "runtimeRef": "torch-distributed", **fields}}


def placed(**placement: Any) -> dict[str, Any]:
    return training(placement=placement)


def nodes(**term: Any) -> dict[str, Any]:
    required = {"nodeSelectorTerms": [term]}
    return placed(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}})


def evaluation(**fields: Any) -> dict[str, Any]:
    return {"dataset": {"uri": "org/chat"}, "evaluation": fields}


NODE_TERM = "spec.training.placement.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]"
POD_TERM = "spec.training.placement.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]"
TOLERATION = "spec.training.placement.tolerations[0]"
SCRATCH = [{"name": "a", "emptyDir": {}}]


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with shared("2.1") as plane:
        yield plane


@pytest.fixture
async def cluster(control_plane: ControlPlane) -> AsyncIterator[Any]:
    async with connected(control_plane) as client:
        yield client


async def decided(cluster: Any, spec: dict[str, Any], place: Settings = PLACE) -> dict[str, Any]:
    """The status after the first pass over a new run."""
    run = Run.parse({"metadata": {"name": "demo", "namespace": "default", "uid": "u", "generation": 1}, "spec": spec})
    observed = await observe(
        cluster, run, place, NOW, Caches(lambda _stage_status: None, {}, WarningEvents(), ConfigMapContents(), {}, Lineage())
    )
    return plan(run, observed, NOW).status


INVALID = (
    Report(
        "negative-memory", JOBS, training(resources={"memory": -5}),
        "spec.training.resources.memory: not a quantity of 0 or more",
    ),
    Report(
        "negative-cpu-text", "own", training(resources={"cpu": "-1"}),
        "spec.training.resources.cpu: not a quantity of 0 or more",
    ),
    Report(
        "negative-scratch", "own", training(resources={"ephemeralStorage": "-1Gi"}),
        "spec.training.resources.ephemeralStorage: not a quantity of 0 or more",
    ),
    Report(
        "label-key-with-a-space", "own", placed(labels={"a b": "x"}),
        'spec.training.placement.labels: Invalid value: "a b": name part must consist of alphanumeric characters',
    ),
    Report(
        "label-key-with-a-prefix-in-capitals", JOBS, placed(labels={"FINETUNERUN.io/run": "x"}),
        'spec.training.placement.labels: Invalid value: "FINETUNERUN.io/run": prefix part a lowercase RFC 1123 subdomain',
    ),
    Report(
        "label-of-the-job", JOBS, placed(labels={"jobset.sigs.k8s.io/jobset-name": "x", "batch.kubernetes.io/job-name": "y"}),
        "spec.training.placement.labels",
    ),
    Report(
        "annotation-key-with-a-space", JOBS, placed(annotations={"a b": "x"}),
        'spec.training.placement.annotations: Invalid value: "a b": name part must consist of alphanumeric characters',
    ),
    Report(
        "annotation-key-with-two-slashes", JOBS, placed(annotations={"a/b/c": "x"}),
        'spec.training.placement.annotations: Invalid value: "a/b/c": a qualified name must consist of',
    ),
    Report(
        "node-selector-key", JOBS, placed(nodeSelector={"a b!": "x"}),
        'spec.training.placement.nodeSelector: Invalid value: "a b!": name part must consist of alphanumeric characters',
    ),
    Report(
        "toleration-exists-with-a-value", JOBS, placed(tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]),
        f"{TOLERATION}.operator: Invalid value: \"b\": value must be empty when `operator` is 'Exists'",
    ),
    Report(
        "toleration-without-a-key", "own", placed(tolerations=[{"operator": "Equal", "value": "b"}]),
        f'{TOLERATION}.operator: Invalid value: "Equal": operator must be Exists when `key` is empty',
    ),
    Report(
        "toleration-seconds-without-no-execute", JOBS,
        placed(tolerations=[{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 3}]),
        f"{TOLERATION}.effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
    ),
    Report(
        "second-toleration", "own", placed(tolerations=[{"operator": "Exists"}, {"operator": "Exists", "value": "b"}]),
        'spec.training.placement.tolerations[1].operator: Invalid value: "b"',
    ),
    Report(
        "affinity-exists-with-values", JOBS, nodes(matchExpressions=[{"key": "a", "operator": "Exists", "values": ["x"]}]),
        f"{NODE_TERM}.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
    ),
    Report(
        "affinity-in-without-values", JOBS, nodes(matchExpressions=[{"key": "a", "operator": "In"}]),
        f"{NODE_TERM}.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
    ),
    Report(
        "affinity-with-an-unknown-field", JOBS, nodes(matchFields=[{"key": "spec.x", "operator": "In", "values": ["x"]}]),
        f'{NODE_TERM}.matchFields[0].key: is "spec.x"; use',
    ),
    Report(
        "affinity-greater-than-two-values", "own", nodes(matchExpressions=[{"key": "a", "operator": "Gt", "values": ["1", "2"]}]),
        f"{NODE_TERM}.matchExpressions[0].values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'",
    ),
    Report(
        "pod-affinity-label-key", "own",
        placed(affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"a b": "x"}}, "topologyKey": "kubernetes.io/hostname"}]}}),
        f'{POD_TERM}.labelSelector.matchLabels: Invalid value: "a b"',
    ),
    Report(
        "sub-path-upward", JOBS, training(volumes=SCRATCH, volumeMounts=[{"name": "a", "mountPath": "/x", "subPath": "../../etc"}]),
        "spec.training.volumeMounts.subPath: Invalid value: \"../../etc\": must not contain '..'",
    ),
    Report(
        "sub-path-absolute", "own", training(volumes=SCRATCH, volumeMounts=[{"name": "a", "mountPath": "/x", "subPath": "/etc"}]),
        'spec.training.volumeMounts.subPath: Invalid value: "/etc": must be a relative path',
    ),
    Report(
        "mount-without-a-volume", "own", training(volumeMounts=[{"name": "none", "mountPath": "/x"}]),
        "spec.training.volumeMounts[0].name: none is not a volume in training.volumes",
    ),
    Report(
        "mount-over-the-workspace", "own", training(volumes=SCRATCH, volumeMounts=[{"name": "a", "mountPath": "/workspace"}]),
        'spec.training.volumeMounts[0].mountPath: Invalid value: "/workspace": must be unique',
    ),
    Report(
        "volume-of-our-name", "own", training(volumes=[{"name": "workspace", "emptyDir": {}}]),
        'spec.training.volumes[0].name: Duplicate value: "workspace"',
    ),
    Report(
        "volume-size-below-zero", "own", training(volumes=[{"name": "a", "emptyDir": {"sizeLimit": "-1"}}]),
        "spec.training.volumes[0].emptyDir.sizeLimit: not a quantity of 0 or more",
    ),
    Report(
        "shared-memory-below-zero", "own", training(sharedMemory="-1Gi"),
        "spec.training.sharedMemory: not a quantity above 0",
    ),
    Report(
        "number-too-large", "own",
        placed(tolerations=[{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10**30}]),
        "spec.training: its pods are not valid: json: cannot unmarshal number",
    ),
    Report(
        "evaluation-memory", "own", evaluation(resources={"memory": -5}),
        "spec.evaluation.resources.memory: not a quantity of 0 or more",
    ),
    Report(
        "evaluation-toleration", "own", evaluation(placement={"tolerations": [{"operator": "Exists", "value": "b"}]}),
        'spec.evaluation.placement.tolerations[0].operator: Invalid value: "b"',
    ),
)  # fmt: skip


@reports(*INVALID)
async def test_pods_that_are_not_valid(cluster: Any, report: Report) -> None:
    status = await decided(cluster, report.given)
    failure = status["failure"]
    assert failure["reason"] == "InvalidSpec"
    assert failure["message"].startswith(report.expected)
    assert "; " in failure["message"], "what to do"
    assert "startedAt" not in status, "an edit of spec is looked at again"


@reports(*(report for report in INVALID if report.name != "number-too-large"))  # Python has no largest number
async def test_local_mode_names_the_same_field(tmp_path: Path, report: Report) -> None:
    store = Store(tmp_path / "store.db")
    failure = (await decided(store, report.given))["failure"]
    store.close()
    assert failure["reason"] == "InvalidSpec"
    assert failure["message"].partition(": ")[0] == report.expected.partition(": ")[0]


VALID = (
    Report("nothing-of-the-users", "own", training(), "Preparing"),
    Report("good-values", "own", placed(labels={"team": "a"}, tolerations=[{"key": "gpu", "operator": "Exists"}]), "Preparing"),
    Report("good-memory", "own", training(resources={"memory": "1e3"}, sharedMemory="1Gi"), "Preparing"),
    Report("good-evaluation", "own", evaluation(resources={"cpu": 2}, placement={"nodeSelector": {"zone": "a"}}), "Preparing"),
)


@reports(*VALID)
async def test_pods_that_are_valid(cluster: Any, tmp_path: Path, report: Report) -> None:
    assert (await decided(cluster, report.given))["phase"] == report.expected
    store = Store(tmp_path / "store.db")
    assert (await decided(store, report.given))["phase"] == report.expected
    store.close()


async def test_defaults_of_the_namespace_are_named(cluster: Any) -> None:
    defaults = {"training": {"placement": {"labels": {"a b": "x"}}}}
    status = await decided(cluster, training(), replace(PLACE, namespace_defaults=defaults))
    assert status["failure"]["message"].startswith('ConfigMap finetune-defaults, training.placement.labels: Invalid value: "a b"')
    status = await decided(cluster, training(), replace(PLACE, operator_defaults=defaults))
    assert status["failure"]["message"].startswith("the operator's configuration, defaults.training.placement.labels: Invalid")
