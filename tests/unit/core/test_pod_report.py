"""Pods with containers that somebody else added: the stage's is found by its name, and the others are looked at only for what they hold back."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.core import naming
from finetune_operator.core.diagnosis import diagnose
from finetune_operator.core.manifests import children
from finetune_operator.core.manifests.trainjob import trainjob
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.settings import Trainer
from finetune_operator.core.stages import GRAPH

from .passes import run_of, stage, world_at

Object = dict[str, Any]
RUNS, ENDED, FAILED = {"running": {}}, {"terminated": {"exitCode": 0}}, {"terminated": {"exitCode": 1, "reason": "Error"}}
PROXY = {"name": "istio-proxy", "state": RUNS}
STARTS = {"waiting": {"reason": "PodInitializing"}}


def of(name: str, state: Object, **more: Any) -> Object:
    return {"name": name, "state": state, **more}


def report(stage_name: str, *containers: Object, init: tuple[Object, ...] = (), **status: Any) -> PodReport:
    labels = {naming.STAGE_LABEL: stage_name} if stage_name else {}
    statuses = {"containerStatuses": list(containers), **({"initContainerStatuses": list(init)} if init else {})}
    return PodReport.parse({"metadata": {"name": "p", "labels": labels}, "status": {**statuses, **status}})


@pytest.mark.parametrize(
    ("stage_name", "containers", "code"),
    [
        ("training", (PROXY, of("node", ENDED)), 0),
        ("training", (of("node", FAILED), of("zz-agent", RUNS)), 1),
        ("training", (of("stage", FAILED), of("node", ENDED)), 0),
        ("dataset", (of("agent", ENDED), of("stage", FAILED)), 1),
        ("dataset", (of("agent", FAILED), of("stage", ENDED)), 0),
        ("evaluation", (of("node", ENDED), of("stage", RUNS)), None),
        ("evaluation", (PROXY,), None),
        ("", (PROXY, of("stage", ENDED)), 0),
        ("dataset", (PROXY, of("stage", RUNS, lastState=FAILED)), 1),
        ("dataset", (of("istio-proxy", RUNS, lastState=FAILED), of("stage", RUNS)), None),
        ("dataset", ({"state": ENDED}, of("stage", RUNS)), None),
        ("dataset", (of("stage", ENDED, lastState=FAILED),), 0),
        ("dataset", ({"name": "stage"},), None),
    ],
)
def test_how_the_container_of_the_stage_ended(stage_name: str, containers: tuple[Object, ...], code: int | None) -> None:
    found = report(stage_name, *containers)
    assert (found.termination.exit_code if found.termination else None) == code
    assert (found.failed, found.succeeded, found.done) == (code == 1, code == 0, code is not None)


def test_an_init_container_of_the_stages_name_is_not_the_stage() -> None:
    assert report("dataset", init=(of("stage", ENDED),)).termination is None


@pytest.mark.parametrize("name", GRAPH.programs)
def test_the_name_is_that_of_the_manifest(name: str) -> None:
    world = world_at("training", {"dataset": {"uri": "/d.jsonl"}, "evaluation": {"tasks": [], "baseline": True}})
    run, record, program = run_of(world), stage(world, name), GRAPH.programs[name]
    if program.definition.child_kind == "Job":
        job = children.job(run, record, program.program, program.pod(run), program.definition.image)
        (container,) = job["spec"]["template"]["spec"]["containers"]
    else:
        made = trainjob(run, record, program.pod(run), Trainer("podTemplateOverrides"))
        (container,) = made["spec"]["podTemplateOverrides"][0]["spec"]["containers"]
    assert container["name"] == naming.container_name(name)


@pytest.mark.parametrize(
    ("containers", "init", "phase", "runs", "over"),
    [
        ((PROXY, of("stage", ENDED)), (), "Running", True, False),
        ((of("istio-proxy", ENDED), of("stage", ENDED)), (), "Running", False, True),
        ((of("istio-proxy", {"waiting": {"reason": "CrashLoopBackOff"}}), of("stage", ENDED)), (), "Running", True, False),
        ((of("stage", ENDED),), (PROXY,), "Running", True, False),
        ((of("stage", ENDED),), (of("istio-init", ENDED),), "Running", False, True),
        ((PROXY, of("stage", RUNS)), (), "Running", False, False),
        ((of("stage", ENDED),), (), "Running", False, True),
        ((PROXY, of("stage", ENDED)), (), "Succeeded", True, True),
        ((), (), "Failed", False, True),
    ],
    ids=["a proxy runs", "it has ended too", "it is tried again", "a native sidecar runs", "an init container ended",
         "the stage runs", "a moment before the phase", "the phase says so", "nothing ever ran"],
)  # fmt: skip
def test_what_of_a_pod_still_runs(
    containers: tuple[Object, ...], init: tuple[Object, ...], phase: str, runs: bool, over: bool
) -> None:
    found = report("dataset", *containers, init=init, phase=phase)
    assert (found.sidecar_runs, found.over) == (runs, over)


PULL = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}


@pytest.mark.parametrize(
    ("containers", "init", "waiting", "message"),
    [
        ((of("stage", STARTS),), (of("istio-init", PULL),), "ImagePullBackOff", "container istio-init: no such image"),
        ((of("istio-proxy", PULL), of("stage", {})), (), "ImagePullBackOff", "container istio-proxy: no such image"),
        ((of("istio-proxy", {"waiting": {"reason": "CreateContainerError"}}), of("stage", STARTS)), (), "CreateContainerError",
         "container istio-proxy: CreateContainerError"),
        ((of("istio-proxy", PULL), of("stage", RUNS)), (), "", ""),
        ((of("istio-proxy", PULL), of("stage", ENDED)), (), "", ""),
        ((of("istio-proxy", PULL), of("stage", {"waiting": {"reason": "ErrImagePull", "message": "mine"}})), (), "ErrImagePull", "mine"),
        ((of("istio-proxy", STARTS), of("stage", STARTS)), ({"name": "istio-init"},), "PodInitializing", ""),
        ((), (), "", ""),
    ],
)  # fmt: skip
def test_what_keeps_the_stage_from_starting(
    containers: tuple[Object, ...], init: tuple[Object, ...], waiting: str, message: str
) -> None:
    found = report("dataset", *containers, init=init)
    assert (found.waiting, found.waiting_message) == (waiting, message)


def test_a_pod_that_an_init_container_ended_names_the_container() -> None:
    init = (of("first", ENDED), {"name": "odd"}, of("istio-init", FAILED))
    found = report("dataset", of("stage", STARTS), init=init, phase="Failed")
    assert found.init_failure == "init container istio-init ended with exit code 1 (Error)"
    diagnosis = diagnose((found,), {}, "")
    assert (diagnosis.reason.name, diagnosis.message) == (
        "InitContainerFailed", "Pod p: its init container istio-init ended with exit code 1 (Error).",
    )  # fmt: skip
    silent = report("dataset", init=(of("a", {"terminated": {"exitCode": 3}}),), phase="Failed")
    assert silent.init_failure == "init container a ended with exit code 3"


@pytest.mark.parametrize(
    "status",
    [{"reason": "Evicted"}, {"conditions": [{"type": "DisruptionTarget", "status": "True"}]}],
    ids=["evicted", "disrupted"],
)
def test_a_pod_that_was_taken_away_while_it_began_is_no_fault_of_its_init_container(status: Object) -> None:
    found = report("dataset", init=(of("istio-init", {"terminated": {"exitCode": 137}}),), phase="Failed", **status)
    assert diagnose((found,), {}, "").reason.name == "Evicted"


def test_an_init_container_that_is_retried_has_not_failed_the_pod() -> None:
    assert report("dataset", init=(of("istio-init", FAILED),), phase="Pending").init_failure == ""
    assert report("dataset", init=(of("istio-init", ENDED),), phase="Failed").init_failure == ""
    assert Termination(0).reason == ""
