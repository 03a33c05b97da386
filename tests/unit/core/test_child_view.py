"""Children as decisions read them, and the delay after which a change of a pod requires a pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_operator.core.child_view import RUNNING_SECONDS, child_view, is_under_way, pod_requeue_after
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.waiting import STARTING_SECONDS

CREATED = PodReport("p", created_at="2026-11-21T10:00:00Z")
PLACED = replace(CREATED, placed=True)
RUNNING = replace(PLACED, phase="Running")


def job(spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "j", "uid": "u", "resourceVersion": "7"}, "spec": spec, "status": status or None}


@pytest.mark.parametrize(
    ("before", "pod", "seconds"),
    [
        (None, CREATED, STARTING_SECONDS),
        (None, PLACED, STARTING_SECONDS),
        (CREATED, CREATED, None),
        (CREATED, PLACED, STARTING_SECONDS),
        (PLACED, replace(PLACED, waiting="ContainerCreating", waiting_message="..."), None),
        (PLACED, replace(PLACED, waiting="PodInitializing"), None),
        (PLACED, replace(PLACED, waiting="ErrImagePull"), 0.0),
        (replace(PLACED, waiting="ErrImagePull"), replace(PLACED, waiting="ContainerCreating"), 0.0),
        (CREATED, replace(CREATED, unschedulable="no node"), 0.0),
        (PLACED, RUNNING, RUNNING_SECONDS),
        (CREATED, RUNNING, RUNNING_SECONDS),
        (RUNNING, replace(RUNNING, gone=True), 0.0),
        (PLACED, replace(RUNNING, termination=Termination(0)), 0.0),
        (RUNNING, replace(RUNNING, phase="Succeeded", termination=Termination(0)), 0.0),
        (None, replace(CREATED, phase="Failed"), 0.0),
    ],
)
def test_the_delay_after_a_change_of_a_pod(before: PodReport | None, pod: PodReport, seconds: float | None) -> None:
    assert pod_requeue_after(before, pod) == seconds


@pytest.mark.parametrize(
    "child",
    [
        job(active=1, startTime="2026-11-21T10:00:00Z"),
        job(succeeded=2, failed=1),
        job(conditions=[{"type": "Suspended", "status": "False"}]),
        job({"suspend": False, "template": {}}),
        {**job(), "metadata": {"name": "j", "uid": "u", "resourceVersion": "8", "generation": 2, "managedFields": [{}]}},
    ],
)
def test_a_change_that_no_decision_reads_leaves_the_view_as_it_is(child: dict[str, Any]) -> None:
    assert child_view(child) == child_view(job())


@pytest.mark.parametrize(
    "child",
    [
        job({"suspend": True}),
        job(conditions=[{"type": "Failed", "status": "True"}]),
        job(trainerStatus={"progressPercentage": 3}),
        {**job(), "metadata": {"name": "j", "uid": "u", "annotations": {"a": "b"}}},
    ],
)
def test_a_change_that_decisions_read_changes_the_view(child: dict[str, Any]) -> None:
    assert child_view(child) != child_view(job())


@pytest.mark.parametrize(
    ("child", "expected"),
    [
        (job(), True),
        (job({"suspend": True}), False),
        (job(conditions=[{"type": "Suspended", "status": "True"}]), False),
        (job(conditions=[{"type": "Complete", "status": "True"}]), False),
        (job(conditions=[{"type": "Complete", "status": "False"}]), True),
    ],
)
def test_whether_a_child_is_in_progress(child: dict[str, Any], expected: bool) -> None:
    assert is_under_way(child_view(child)) is expected
