"""The control loop on a real control plane, with pods that end at once: reruns from every stage, and what others do to its objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster.conftest import Connect
from cluster.looping import Loop, condition_of, looping
from controlplane.api import Api
from controlplane.cluster import ControlPlane
from finetune_operator.api.kinds import CONFIGMAP, EVENT, JOB, SERVICE_ACCOUNT, TRAINJOB
from reruns import CHANGES
from waiting import eventually

pytestmark = [pytest.mark.timeout(240), pytest.mark.parametrize("control_plane", ["2.1"], indirect=True)]


@pytest.fixture
async def loop(control_plane: ControlPlane, api: Api, connect: Connect, namespace: str, tmp_path: Path) -> AsyncIterator[Loop]:
    async with looping(control_plane, api, connect, namespace, tmp_path) as loop:
        yield loop


async def test_reruns_from_every_stage_plain_and_changed(loop: Loop) -> None:
    await loop.apply()
    await loop.ended()
    number = 1
    for stage, change in reversed(CHANGES.items()):
        for spec in ({}, change):
            number += 1
            await loop.edit({"rerun": {"id": f"again-{number}", "from": stage}, **spec})
            run = await loop.ended(number)
            assert run.status["rerunId"] == f"again-{number}"
            assert run.status["observedGeneration"] == run.generation
    await loop.edit({"rerun": {"id": "unsupported", "from": "gate"}, "publish": {"uri": "oci://r/x"}})
    rejected = await eventually(loop.run, lambda run: run.status["observedGeneration"] == run.generation, 10)
    assert condition_of(rejected, "RerunRejected") == ("True", "Unsupported")
    for field in ("phase", "model", "registry", "stages", "metrics", "rerunId"):
        assert rejected.status[field] == run.status[field], field
    fields = {"involvedObject.name": "demo", "reason": "Unsupported"}
    await eventually(lambda: loop.cluster.list(EVENT, loop.namespace, fields=fields), lambda page: len(page.items) == 1)
    await loop.edit({"publish": None})
    run = await loop.ended(number + 1)
    assert (run.status["rerunId"], condition_of(run, "RerunRejected")) == ("unsupported", ("", ""))


async def test_what_runs_share_comes_back_under_a_run(loop: Loop) -> None:
    loop.pods.running.add("training")
    await loop.apply()
    await eventually(loop.run, lambda run: "training" in run.stages and run.stages["training"].reason == "Running", 30)
    await loop.cluster.delete(SERVICE_ACCOUNT, loop.namespace, "finetune-stage")
    loop.pods.running.clear()
    run = await loop.ended()
    assert await loop.cluster.get(SERVICE_ACCOUNT, loop.namespace, "finetune-stage")
    assert all(record.attempt <= 1 for record in run.stages.values())


async def test_configmaps_come_back_for_a_pod_that_does_not_start(loop: Loop) -> None:
    loop.pods.starting.add("training")
    await loop.apply()
    await eventually(lambda: _pods(loop), lambda pods: len(pods) == 1, 30)
    bundle = next(
        one["metadata"]["name"]
        for one in (await loop.cluster.list(CONFIGMAP, loop.namespace)).items
        if one["metadata"]["name"].startswith("finetune-training-bundle-")
    )
    for name in ("demo-inputs-1", bundle):
        await loop.cluster.delete(CONFIGMAP, loop.namespace, name)
    (pod,) = loop.pods.of("training")
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod["metadata"]["name"]},
        "target": {"kind": "Node", "name": "n"},
    }
    loop.api.call("POST", f"/api/v1/namespaces/{loop.namespace}/pods/{pod['metadata']['name']}/binding", binding)
    for name in ("demo-inputs-1", bundle):
        await eventually(lambda name=name: _exists(loop, name), seconds=15)
    assert condition_of(await loop.run(), "Stalled")[0] == "False"
    loop.pods.starting.clear()
    await loop.ended()


async def _pods(loop: Loop) -> list[Any]:
    return loop.pods.of("training")


async def _exists(loop: Loop, name: str) -> bool:
    return any(one["metadata"]["name"] == name for one in (await loop.cluster.list(CONFIGMAP, loop.namespace)).items)


async def test_a_foreign_inputs_configmap_is_not_mounted(loop: Loop) -> None:
    metadata = {"name": "demo-inputs-1", "namespace": loop.namespace}
    stranger = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}}
    loop.api.create(stranger)
    await loop.apply()
    run = await loop.stalled("NameConflict")
    assert "ConfigMap demo-inputs-1: it exists and does not belong to this run" in run.status["summary"]["message"]
    assert not (await loop.cluster.list(JOB, loop.namespace)).items
    loop.api.delete(stranger)
    await loop.ended()


async def test_a_child_that_another_client_suspends_is_reported_and_continues_when_it_is_resumed(loop: Loop) -> None:
    loop.pods.running |= {"training", "dataset"}
    await loop.apply()
    for kind, stage in ((JOB, "dataset"), (TRAINJOB, "training")):
        run = await eventually(
            loop.run, lambda run, stage=stage: stage in run.stages and run.stages[stage].reason == "Running", 30
        )
        name = run.stages[stage].child_name
        await loop.cluster.patch(kind, loop.namespace, name, {"spec": {"suspend": True}})
        run = await loop.stalled("ChildSuspended")
        assert run.stages[stage].message == f"{kind.name} {name}: spec.suspend is true, and this operator did not set it"
        await loop.cluster.patch(kind, loop.namespace, name, {"spec": {"suspend": False}})
        await eventually(loop.run, lambda run, stage=stage: run.stages[stage].reason == "Running", 30)
        loop.pods.running.discard(stage)
    run = await loop.ended()
    assert all(record.attempt <= 1 for record in run.stages.values())
