"""On a real control plane: what somebody else put under our names and labels is never used."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster.conftest import Connect
from cluster.looping import Loop, looping
from controlplane.api import Api
from controlplane.cluster import ControlPlane
from finetune_operator.api.kinds import CLAIM, CONFIGMAP, JOB, POD, SERVICE_ACCOUNT, TRAINJOB, Kind
from finetune_operator.core.naming import MANAGED_BY, MANAGED_BY_LABEL, bundle_name
from finetune_operator.loop.errors import NotFound
from finetune_operator.training_bundle import training_bundle
from waiting import eventually

pytestmark = [pytest.mark.timeout(240), pytest.mark.parametrize("control_plane", ["2.1"], indirect=True)]
Object = dict[str, Any]
PROGRAM = {"immutable": True, "binaryData": {"training.pyz": base64.b64encode(b"print('stolen')").decode()}}
VOLUME = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}


@pytest.fixture
async def loop(control_plane: ControlPlane, api: Api, connect: Connect, namespace: str, tmp_path: Path) -> AsyncIterator[Loop]:
    async with looping(control_plane, api, connect, namespace, tmp_path) as loop:
        yield loop


async def test_an_object_under_a_name_of_ours_is_a_conflict_until_it_is_deleted(loop: Loop) -> None:
    strangers: list[tuple[Kind, str, Object, str]] = [
        (CONFIGMAP, bundle_name(training_bundle().digest), PROGRAM, "ConfigMap {}: its content is not what the operator wrote"),
        (SERVICE_ACCOUNT, "finetune-stage", {}, "ServiceAccount {}: it is not the account of this operator"),
        (
            CONFIGMAP,
            "demo-inputs-1",
            {"immutable": True, "data": {"dataset.json": "{}"}},
            "ConfigMap {}: it exists and does not belong",
        ),
        (CLAIM, "demo-workspace", VOLUME, "claim {}: it exists and was not created for this run"),
    ]
    for kind, name, content, _ in strangers:
        metadata = {
            "name": name,
            "namespace": loop.namespace,
            "labels": {MANAGED_BY_LABEL: MANAGED_BY, "finetunerun.io/run": "demo"},
        }
        await loop.cluster.create({"apiVersion": kind.api_version, "kind": kind.name, "metadata": metadata, **content})
    await loop.apply()
    open_ = {name: words.format(name) for _, name, _, words in strangers}
    for kind, name, _, _ in sorted(strangers, key=lambda stranger: stranger[1]):
        run = await loop.stalled("NameConflict")
        assert any(words in run.stages["workspace"].message for words in open_.values()), run.stages["workspace"].message
        assert not (await loop.cluster.list(JOB, loop.namespace)).items
        await _delete(loop, kind, name)
        del open_[name]
        if open_:
            await eventually(
                loop.run, lambda run: any(words in (run.stages["workspace"].message or "") for words in open_.values()), 30
            )
    await loop.ended()


async def _delete(loop: Loop, kind: Kind, name: str) -> None:
    await loop.cluster.delete(kind, loop.namespace, name)
    with contextlib.suppress(NotFound):  # a claim is protected until a controller finds that no pod uses it
        await loop.cluster.patch(kind, loop.namespace, name, {"metadata": {"finalizers": None}})


@pytest.mark.parametrize(("stage", "kind"), [("dataset", JOB), ("training", TRAINJOB)])
async def test_a_pod_with_our_labels_is_not_a_pod_of_ours(loop: Loop, stage: str, kind: Kind) -> None:
    loop.pods.running.add(stage)
    await loop.apply()
    await eventually(loop.run, lambda run: stage in run.stages and run.stages[stage].reason == "Running", 60)
    (ours,) = (pod for pod in loop.pods.of(stage) if pod["metadata"]["ownerReferences"])
    container = {key: ours["spec"]["containers"][0][key] for key in ("name", "image", "env")}
    job = {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "forged", "namespace": loop.namespace},
        "spec": {"template": {
            "metadata": {"labels": ours["metadata"]["labels"]}, "spec": {"restartPolicy": "Never", "containers": [container]},
        }},
    }  # fmt: skip
    for key in ("batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "controller-uid", "job-name"):
        job["spec"]["template"]["metadata"]["labels"].pop(key, None)
    await loop.cluster.create(job)
    metadata = {"name": "alone", "namespace": loop.namespace, "labels": job["spec"]["template"]["metadata"]["labels"]}
    await loop.cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}})
    forged = await eventually(lambda: _strangers(loop, kind, stage), lambda pods: len(pods) == 2, 30)
    for pod in forged:
        status = {
            "name": container["name"], "image": "i", "imageID": "", "restartCount": 0, "ready": False,
            "state": {"terminated": {"exitCode": 1, "reason": "Error", "message": "{}"}},
        }  # fmt: skip
        patch = {"status": {"phase": "Failed", "containerStatuses": [status]}}
        await loop.cluster.patch_status(POD, loop.namespace, pod["metadata"]["name"], patch)
    await asyncio.sleep(5)  # the operator reads the stage several times
    run = await loop.run()
    assert (run.stages[stage].state, run.stages[stage].attempt, run.stages[stage].failures) == ("Running", 1, {})
    loop.pods.running.clear()
    run = await loop.ended()
    assert all(record.attempt <= 1 and not record.failures for record in run.stages.values())


async def _strangers(loop: Loop, kind: Kind, stage: str) -> list[Object]:
    owner = {JOB: "demo-dataset-1-1", TRAINJOB: "demo-train-1-1-node-0"}[kind]
    return [
        pod
        for pod in loop.pods.of(stage)
        if not any(one["name"] == owner for one in pod["metadata"].get("ownerReferences") or ())
    ]
