"""Objects of the API reduced to what decisions need."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.core.observation import ChildState, child_state, failure_message
from finetune_operator.core.pod_report import PodReport, Termination

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


def test_a_pod_that_was_rejected_or_disrupted_or_is_terminating() -> None:
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


def test_the_failure_message_of_a_child() -> None:
    def failed(**words: str) -> dict[str, Any]:
        others = [{"type": "Suspended", "status": "False"}, {"type": "Failed", "status": "False"}]
        return {"status": {"conditions": [*others, {"type": "Failed", "status": "True", **words}]}}

    assert failure_message(failed(message="m", reason="r")) == "m"
    assert failure_message(failed(reason="r")) == "r"
    assert failure_message(failed()) == ""
    assert failure_message({}) == ""
