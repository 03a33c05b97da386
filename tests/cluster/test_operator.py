"""The operator on a real control plane: the whole run through real Jobs, TrainJobs and JobSets, its pods as processes."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.conftest import Connect
from cluster.operators import Operator, install_rights
from cluster.sites import SPEC, UNTRAINED, Object, Site, site_at
from controlplane.api import Api
from controlplane.binaries import Binaries
from controlplane.cluster import ControlPlane
from controlplane.programs import KUBECTL
from finetune_operator.api.kinds import CLAIM, EVENT, FINETUNERUN, JOB, POD, TRAINJOB
from kstatus import kstatus
from model_registry_server import ModelRegistryServer
from waiting import eventually
from web_server import machine_address

ONE = pytest.mark.parametrize("control_plane", ["2.1"], indirect=True)
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
async def site(
    control_plane: ControlPlane, api: Api, connect: Connect, namespace: str, tmp_path: Path, tiny_model: Path
) -> AsyncIterator[Site]:
    install_rights(api, namespace)
    async with connect() as cluster, site_at(control_plane, cluster, namespace, tmp_path, tiny_model) as site:
        yield site


async def test_a_run_goes_from_its_data_to_the_registry(site: Site) -> None:
    with ModelRegistryServer(host=machine_address()) as registry:  # no pod of a cluster contacts loopback
        async with site.operator() as running:
            await site.apply({**SPEC, "registry": {"address": registry.url, "name": "tiny"}})
            status = await site.ended()
            assert status["phase"] == "Succeeded", status.get("failure")
            assert running.problems() == []
            # The last pass is counted when its status is written, which is what this test has just seen.
            count = 'finetune_transitions_total{reason="StageSucceeded"} 9.0'
            assert "finetune_leader 1.0" in await eventually(running.metrics, lambda text: count in text)
            assert await running.stop() == 0
            told = [line for line in running.lines() if line.get("reason") == "StageStarted"]
            assert {(line["run"], line["attempt"]) for line in told} == {(f"{site.namespace}/demo", "1.1")}
            assert [line["stage"] for line in told][-1] == "registration"
    assert {stage["name"]: stage["state"] for stage in status["stages"]} == {
        **dict.fromkeys(
            ("workspace", "dataset", "model", "tokenization", "training", "baseline", "evaluation", "gate", "registration"),
            "Succeeded",
        ),
        **dict.fromkeys(("registry-check", "engine-check"), "Skipped"),
    }
    assert status["model"]["uri"].startswith("pvc://demo-workspace/runs/demo-")
    (version,) = registry.versions("tiny")
    assert registry.artifacts(version)[0]["uri"] == status["model"]["uri"]
    assert len(status["history"]) > 2, "the loss came while it trained"
    jobs = (await site.cluster.list(JOB, site.namespace)).items
    assert len([job for job in jobs if "finetunerun.io/run" in job["metadata"]["labels"]]) == 6
    (trainjob,) = (await site.cluster.list(TRAINJOB, site.namespace)).items
    assert {"type": "Complete", "status": "True"}.items() <= trainjob["status"]["conditions"][-1].items()
    pods = (await site.cluster.list(POD, site.namespace)).items
    assert {pod["spec"]["serviceAccountName"] for pod in pods} == {"finetune-stage"}
    news = [
        event["reason"]
        for event in (await site.cluster.list(EVENT, site.namespace)).items
        if event["involvedObject"]["name"] == "demo"
    ]
    assert news.count("RunSucceeded") == 1
    assert len(news) <= 20


@ONE
async def test_two_nodes_train_together(site: Site) -> None:
    spec = {
        **UNTRAINED,
        "training": {**SPEC["training"], "algorithm": "sft", "workers": 2, "resources": {"cpu": 1, "memory": "1Gi"}},
    }
    del spec["training"]["osft"], spec["gate"]
    async with site.operator():
        await site.apply(spec)
        status = await site.ended()
    assert status["phase"] == "Succeeded", status.get("failure")
    assert (await site.cluster.list(POD, site.namespace, labels={"finetunerun.io/stage": "training"})).items[1:]


@ONE
async def test_the_next_operator_continues_after_a_kill_at_any_time(site: Site) -> None:
    spec = {name: value for name, value in UNTRAINED.items() if name != "gate"}
    await site.apply(spec)
    for pause in (1.5, 2.5, 4.0):
        async with site.operator() as running:
            await asyncio.sleep(pause)
            running.kill()
    async with site.operator() as running:
        status = await site.ended()
        assert running.problems() == []
    assert status["phase"] == "Succeeded", status.get("failure")
    assert all(stage.get("attempt", 1) == 1 for stage in status["stages"])


@ONE
async def test_bad_input_ends_the_run_with_its_reason(site: Site) -> None:
    spec = {name: value for name, value in UNTRAINED.items() if name != "gate"}
    async with site.operator():
        await site.apply({**spec, "dataset": {"uri": "org/nothing"}})
        status = await site.ended()
        assert (status["phase"], status["failure"]["reason"]) == ("Failed", "DatasetNotFound")
        assert "dataset.uri" in status["failure"]["hint"]


@ONE
async def test_what_people_and_tools_see_survives_an_operator_that_died(site: Site) -> None:
    """Columns, kstatus and Events: an operator is killed before its Events are written, and the next one writes each once."""
    spec = {name: value for name, value in UNTRAINED.items() if name != "gate"}
    await site.apply(spec)
    await site.apply({**spec, "dataset": {"uri": "org/nothing"}}, "nodata")
    assert [kstatus(await _run(site, name)) for name in ("demo", "nodata")] == ["InProgress", "InProgress"]
    async with site.operator() as running:
        bound = await eventually(site.status, lambda status: _condition(status, "WorkspaceReady")[0] == "True", 120)
        assert _condition(bound, "WorkspaceReady") == ("True", "Succeeded")
        (claim,) = [
            one for one in (await site.cluster.list(CLAIM, site.namespace)).items if one["metadata"]["name"] == "demo-workspace"
        ]
        assert claim["status"]["phase"] == "Bound"
        await site.ended("nodata")
        status = await site.ended()
        running.kill()
    assert status["phase"] == "Succeeded", status.get("failure")
    assert status["resolved"]["volumeUri"] == "pvc://demo-workspace"
    assert [kstatus(await _run(site, name)) for name in ("demo", "nodata")] == ["Current", "Failed"]
    table = await asyncio.to_thread(_table, site)
    assert re.search(
        r"^NAME +PHASE +PROGRESS +ROWS +LOSS +SCORE +MODEL +AGE +ALGORITHM +ETA +QUEUE +MESSAGE$", table, re.MULTILINE
    )
    assert re.search(r"^demo +Succeeded +\d+ +\S+ +org/tiny +\S+ +osft", table, re.MULTILINE), table
    assert re.search(r"^nodata +Failed +org/tiny +\S+ +osft +dataset: DatasetNotFound: ", table, re.MULTILINE), table
    for event in (await site.cluster.list(EVENT, site.namespace, fields={"involvedObject.kind": "FineTuneRun"})).items:
        await site.cluster.delete(EVENT, site.namespace, event["metadata"]["name"])
    expected = [("RunSucceeded", status["model"]["uri"]), *_stages(status)]
    for _ in range(2):
        async with site.operator():
            await eventually(lambda: _reported(site, "nodata"), lambda told: "DatasetNotFound" in dict(told), 60)
            await eventually(lambda: _reported(site, "demo"), lambda told: sorted(told) == expected, 60)
            failed = (await site.status("nodata"))["failure"]
            failures = [event for event in await _reported(site, "nodata") if event[0] != "StageSucceeded"]
            assert set(failures) == {("DatasetNotFound", f"dataset: {failed['message']}")}
            assert len(failures) <= 2, "of the stage, and of the run where something was still to be stopped"


async def _run(site: Site, name: str) -> Object:
    return await site.cluster.get(FINETUNERUN, site.namespace, name)


async def _reported(site: Site, name: str) -> list[tuple[str, str]]:
    events = (await site.cluster.list(EVENT, site.namespace, fields={"involvedObject.name": name})).items
    return [(event["reason"], event["message"]) for event in events]


def _stages(status: Object) -> list[tuple[str, str]]:
    """The Events of the stages that did something."""
    done = [entry for entry in status["stages"] if entry["state"] == "Succeeded" and entry["name"] != "workspace"]
    return sorted(("StageSucceeded", f"{entry['name']}: {entry['message']}") for entry in done)


def _condition(status: Object, type_: str) -> tuple[str, str]:
    found = [(one["status"], one["reason"]) for one in status.get("conditions") or () if one["type"] == type_]
    return found[0] if found else ("", "")


def _table(site: Site) -> str:
    """What ``kubectl get -o wide`` prints."""
    assert site.plane.access is not None
    kubectl = Binaries(site.plane.access.binaries).path(KUBECTL)
    words = [kubectl, "--kubeconfig", site.kubeconfig, "-n", site.namespace, "get", "ftr", "-o", "wide"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


@ONE
async def test_two_operators_take_turns(site: Site) -> None:
    spec = {name: value for name, value in UNTRAINED.items() if name != "gate"}
    async with site.operator() as first, site.operator() as second:
        await eventually(lambda: _leaders(first, second), lambda leaders: len(leaders) == 1)
        (leader,) = await _leaders(first, second)
        other = second if leader is first else first
        await site.apply(spec)
        await eventually(site.status, lambda status: bool(status.get("stages")))
        assert await leader.stop() == 0
        status = await site.ended()
        assert status["phase"] == "Succeeded"
        assert await _leaders(first, second) == [leader, other] or await _leaders(first, second) == [other, leader]


async def _leaders(*operators: Operator) -> list[Operator]:
    return [one for one in operators if any("acquired by" in line["message"] for line in one.lines())]
