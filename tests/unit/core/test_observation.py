"""Objects of the API reduced to what decisions need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.core.observation import ChildState, child_state, failure_message, log_wanted, logs_wanted
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.run import Run, StageStatus
from world import SETTINGS, World

STAMP = "2026-11-21T12:00:00Z"


def pod(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", **metadata}, "status": status}


def container(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "stage", **state}]}


def test_a_pod_that_nobody_has_looked_at_yet() -> None:
    assert PodReport.parse({"metadata": {"name": "p"}}) == PodReport("p")


def test_a_pod_that_ended() -> None:
    ended = {"exitCode": 65, "reason": "Error", "message": "words", "finishedAt": STAMP}
    found = PodReport.parse(pod({"phase": "Failed", **container(state={"terminated": ended})}))
    assert found.termination == Termination(65, "Error", "words", STAMP)
    assert found.failed


def test_a_container_that_is_restarted_in_place_shows_how_it_ended_before() -> None:
    status = {"phase": "Running", **container(state={"running": {}}, lastState={"terminated": {"exitCode": 1}})}
    found = PodReport.parse(pod(status))
    assert found.termination == Termination(1)
    assert found.failed


def test_what_keeps_a_pod_from_starting() -> None:
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
    assert PodReport.parse(pod({"conditions": [scheduled]})).unschedulable == "no node"
    assert PodReport.parse(pod({"conditions": [{**scheduled, "reason": "SchedulingGated"}]})).unschedulable == ""
    waiting = PodReport.parse(pod(container(state={"waiting": {"reason": "ErrImagePull", "message": "gone"}})))
    assert (waiting.waiting, waiting.waiting_message) == ("ErrImagePull", "gone")


def test_the_rank_of_a_pod() -> None:
    label = "batch.kubernetes.io/job-completion-index"
    assert PodReport.parse(pod({}, labels={label: "3"})).rank == 3
    assert PodReport.parse(pod({}, labels={label: "x"})).rank == 0


def test_a_pod_that_was_refused_disrupted_or_is_leaving() -> None:
    assert PodReport.parse(pod({"phase": "Failed", "reason": "Evicted", "message": "m"})).rejected == "Evicted"
    assert PodReport.parse(pod({"phase": "Failed"})).failed
    assert not PodReport.parse(pod({"phase": "Running", "reason": "odd"})).rejected
    assert PodReport.parse(pod({"conditions": [{"type": "DisruptionTarget", "status": "True"}]})).disrupted
    assert PodReport.parse(pod({}, deletionTimestamp=STAMP)).gone


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ([], ChildState.ACTIVE),
        ([("Suspended", "True")], ChildState.SUSPENDED),
        ([("Suspended", "False")], ChildState.ACTIVE),
        ([("Complete", "True"), ("Suspended", "True")], ChildState.SUCCEEDED),
        ([("SuccessCriteriaMet", "True")], ChildState.SUCCEEDED),
        ([("FailureTarget", "True")], ChildState.FAILED),
        ([("Failed", "True"), ("Complete", "True")], ChildState.FAILED),
        ([("Failed", "False")], ChildState.ACTIVE),
    ],
)
def test_the_state_of_a_child_is_not_its_last_condition(conditions: list[tuple[str, str]], state: ChildState) -> None:
    assert child_state({"status": {"conditions": [{"type": type_, "status": status} for type_, status in conditions]}}) is state


def test_what_a_failed_child_says_of_itself() -> None:
    def failed(**words: str) -> dict[str, Any]:
        others = [{"type": "Suspended", "status": "False"}, {"type": "Failed", "status": "False"}]
        return {"status": {"conditions": [*others, {"type": "Failed", "status": "True", **words}]}}

    assert failure_message(failed(message="m", reason="r")) == "m"
    assert failure_message(failed(reason="r")) == "r"
    assert failure_message(failed()) == ""
    assert failure_message({}) == ""


RUNNING = StageStatus("training", "Running", 1)


@pytest.mark.parametrize(
    ("record", "pods", "last", "wanted"),
    [
        (RUNNING, (PodReport("a", 0, "Running"),), None, "a"),
        (RUNNING, (PodReport("a", 0, "Running"),), "2026-11-21T11:59:00Z", "a"),
        (RUNNING, (PodReport("a", 0, "Running"),), "2026-11-21T11:59:55Z", None),
        (RUNNING, (PodReport("a", 0, "Pending"), PodReport("b", 1, "Running")), None, None),
        (RUNNING, (PodReport("a", 0, "Running"), PodReport("b", 1, "Failed", Termination(1))), STAMP, "b"),
        (RUNNING, (PodReport("a", 0, "Failed", rejected="Evicted"),), None, None),
        (RUNNING.but(reason="Starting"), (PodReport("a", 0, "Running"),), None, None),
        (RUNNING.but(state="Retrying"), (PodReport("a", 0, "Running"),), None, None),
        (RUNNING, (), None, None),
    ],
)
def test_whose_log_is_wanted(record: StageStatus, pods: tuple[PodReport, ...], last: str | None, wanted: str | None) -> None:
    place = SETTINGS.__class__(**{**SETTINGS.__dict__, "progress_seconds": 10.0})
    assert log_wanted(record, pods, last, STAMP, place) == wanted


@pytest.mark.parametrize(
    ("told", "looks", "phases", "wanted"),
    [
        (None, {}, ("Running", "Running"), ("dataset-0", "model-0")),
        (None, {"model-0": "2026-11-21T11:59:55Z"}, ("Running", "Running"), ("dataset-0",)),
        ("2026-11-21T11:59:55Z", {}, ("Running", "Running"), ()),
        (None, {}, ("Running", "Succeeded"), ()),
        (None, {}, ("Running", "Failed"), ("model-0",)),
    ],
    ids=["nothing known", "one was looked at", "one was told", "one has ended", "one has failed"],
)
def test_whose_logs_are_wanted(told: str | None, looks: dict[str, str], phases: tuple[str, str], wanted: tuple[str, ...]) -> None:
    place = replace(SETTINGS, progress_seconds=10.0)
    stages = {
        name: StageStatus(name, "Running", 1, child_kind="Job", child_name=name).as_status() for name in ("dataset", "model")
    }
    run = World.new().run
    run["status"] = {"phase": "Running", "stages": list(stages.values()), "progress": {"lastReport": told} if told else {}}
    end = {"Failed": Termination(1), "Succeeded": Termination(0)}
    pods = {
        name: (PodReport(f"{name}-0", 0, phase, end.get(phase)),)
        for name, phase in zip(("dataset", "model"), phases, strict=True)
    }
    assert logs_wanted(Run.parse(run), pods, looks, STAMP, place) == wanted
