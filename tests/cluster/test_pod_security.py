"""Every pod that a run makes is admitted where only the restricted pod security standard is, by the API server itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.api import Api, RefusedError, eventually
from finetune_operator.core.manifests.pod import container_security
from finetune_operator.core.stages import GRAPH

Object = dict[str, Any]
ONE = pytest.mark.parametrize("control_plane", ["2.1"], indirect=True)
CHILDREN = Path(__file__).parents[1] / "golden/children"
JOBS = sorted(CHILDREN.glob("*/job-*.yaml"))
TRAINJOBS = {"2.1": ["full/trainjob-training-2.1"], "2.3": [f"{run}/trainjob-training" for run in ("full", "gated", "minimal")]}


@pytest.fixture
def home(api: Api, restricted_namespace: str) -> str:
    """A restricted namespace with what the runs of the golden files name."""
    for account in ("runner", "finetune-stage"):
        api.create(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": restricted_namespace}}
        )
    api.apply({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "low"}, "value": -1})
    return restricted_namespace


@pytest.fixture
def runtimes(api: Api, home: str) -> Iterator[dict[str, str]]:
    """Two ClusterTrainingRuntimes of the test's own: one whose pods meet the standard, as ours do, and one that does not set it."""
    names = {word: f"{word}-{home}" for word in ("restricted", "bare")}
    for word, name in names.items():
        api.create(_runtime(name, container_security() if word == "restricted" else None))
    yield names
    for name in names.values():
        api.delete(_runtime(name, None))


def _runtime(name: str, security: Object | None) -> Object:
    container = {"name": "node", "image": "example.com/training", **({"securityContext": security} if security else {})}
    job = {
        "name": "node",
        "template": {
            "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
            "spec": {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
        },
    }
    policy = {"numNodes": 1, "torch": {}}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "ClusterTrainingRuntime", "metadata": {"name": name},
        "spec": {"mlPolicy": policy, "template": {"spec": {"replicatedJobs": [job]}}},
    }  # fmt: skip


def _golden(path: Path, namespace: str) -> Object:
    """A child as the operator makes it, but for its owner: the garbage collector would remove what belongs to nobody here."""
    manifest: Object = yaml.safe_load(path.read_text(encoding="utf-8"))
    del manifest["metadata"]["ownerReferences"]
    manifest["metadata"]["namespace"] = namespace
    return manifest


@ONE
def test_every_stage_s_pod_is_admitted(api: Api, home: str) -> None:
    assert {path.stem.removeprefix("job-") for path in JOBS} == {
        name for name, one in GRAPH.programs.items() if one.definition.child_kind == "Job"
    }
    for number, path in enumerate(JOBS):
        template = _golden(path, home)["spec"]["template"]
        metadata = {**template["metadata"], "name": f"pod-{number}", "namespace": home}
        api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})


@ONE
def test_a_pod_that_is_missing_one_word_is_not(api: Api, home: str) -> None:
    template = _golden(JOBS[0], home)["spec"]["template"]
    for word in ("allowPrivilegeEscalation", "capabilities"):
        spec = copy.deepcopy(template["spec"])
        del spec["containers"][0]["securityContext"][word]
        with pytest.raises(RefusedError, match=f'violates PodSecurity "restricted:latest": .*{word}'):
            api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad", "namespace": home}, "spec": spec})


@ONE
def test_the_job_controller_makes_the_pod(api: Api, home: str) -> None:
    job = _golden(CHILDREN / "full/job-evaluation.yaml", home)
    api.create(job)
    eventually(lambda: len(_pods(api, home, job)) == 1, "the Job has its pod")


def test_trainjobs_have_their_pods(api: Api, home: str, runtimes: dict[str, str], generation: str) -> None:
    # Fields of pods that a TrainJob of 2.1 lacks come from the runtime; from 2.2 on, no runtime can break them.
    runtime = runtimes["restricted" if generation == "2.1" else "bare"]
    for name in TRAINJOBS[generation]:
        job = _golden(CHILDREN / f"{name}.yaml", home)
        job["metadata"]["name"] = name.split("/", maxsplit=1)[0]
        job["spec"]["runtimeRef"]["name"] = runtime
        api.create(job)
        _await_pods(api, home, job)


@ONE
def test_a_trainjob_of_2_1_on_another_runtime_is_reported(api: Api, home: str, runtimes: dict[str, str]) -> None:
    job = _golden(CHILDREN / "full/trainjob-training-2.1.yaml", home)
    job["spec"]["runtimeRef"]["name"] = runtimes["bare"]
    api.create(job)
    eventually(
        lambda: any("violates PodSecurity" in one.get("message", "") for one in api.list("v1", "Event", home)),
        "an Event says why",
    )
    assert _pods(api, home, job) == []


def _await_pods(api: Api, namespace: str, job: Object) -> None:
    wanted = job["spec"]["trainer"]["numNodes"]
    eventually(lambda: len(_pods(api, namespace, job)) == wanted, f"{job['metadata']['name']} has {wanted} pods")


def _pods(api: Api, namespace: str, job: Object) -> list[Object]:
    """The pods of a Job, or of the Job of a TrainJob's JobSet."""
    name = job["metadata"]["name"]
    jobs = {name, f"{name}-node-0"}
    return [
        pod for pod in api.list("v1", "Pod", namespace) if pod["metadata"]["labels"].get("batch.kubernetes.io/job-name") in jobs
    ]
