"""Pods with a second container that never ends, as a service mesh adds it: stages end with their own container, and hold nothing after.

Controllers of Job, JobSet and Trainer are the real ones.
"""

from __future__ import annotations

from typing import Any

import pytest

from cluster.in_process import PROXY, ended, operating, start
from controlplane.api import Api
from finetune_operator.api.kinds import JOB, TRAINJOB
from finetune_operator.core import release
from finetune_operator.kube.client import ApiServer
from waiting import eventually
from world import OUTPUTS

pytestmark = [pytest.mark.timeout(240), pytest.mark.parametrize("control_plane", ["2.1"], indirect=True)]


@pytest.fixture
def runtime(api: Api, namespace: str) -> Any:
    """A runtime whose pods have a proxy beside the container that trains."""
    found = api.get("trainer.kubeflow.org/v1alpha1", "ClusterTrainingRuntime", "torch-distributed")
    template = found["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    template["containers"].append({"name": PROXY, "image": "example.com/proxy"})
    manifest = {**found, "metadata": {"name": f"mesh-{namespace}", "labels": found["metadata"].get("labels", {})}}
    api.create(manifest)
    yield manifest["metadata"]["name"]
    api.delete(manifest)


async def left(cluster: ApiServer, namespace: str) -> list[str]:
    found = [(await cluster.list(kind, namespace)).items for kind in (JOB, TRAINJOB)]
    return [item["metadata"]["name"] for items in found for item in items if not item["metadata"].get("deletionTimestamp")]


async def test_stages_end_with_their_own_container(
    cluster: ApiServer, namespace: str, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "SIDECAR_SECONDS", 2.0)
    async with operating(cluster, namespace, runtime, {}):
        await start(cluster, namespace)
        status = await ended(cluster, namespace)
        assert status["phase"] == "Succeeded", status["failure"]
        stages = {entry["name"]: entry for entry in status["stages"]}
        assert [stages[name]["attempt"] for name in ("dataset", "model", "training")] == [1, 1, 1]
        assert status["model"]["digest"] == OUTPUTS["training"].digest
        assert not any((entry.get("child") or {}).get("releasing") for entry in stages.values())
        assert await eventually(lambda: left(cluster, namespace), lambda names: not names, 20) == []


async def test_a_stage_that_failed_is_reported_as_it_failed(cluster: ApiServer, namespace: str, runtime: str) -> None:
    async with operating(cluster, namespace, runtime, {"training": 65}):
        await start(cluster, namespace)
        status = await ended(cluster, namespace)
    failure = status["failure"]
    assert (failure["stage"], failure["reason"], failure["exitCode"]) == ("training", "Crashed", 65)
    assert failure["message"] == "the data is odd"
    assert not [name for name in await left(cluster, namespace) if "train" in name], "its pods hold nothing"
