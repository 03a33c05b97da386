"""``status.usage.gpuSeconds``: container time of every pod with GPUs, counted once, without pauses."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.core.observation import Observed
from finetune_operator.core.plan import plan
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.times import stamp
from unit.core.passes import child, edit, go, observed, run_of, stage
from world import NOW, SETTINGS, World

PLACE = replace(SETTINGS, mode="cluster", machine=None, retry_seconds=60.0)
SPEC: dict[str, Any] = {
    "dataset": {"uri": "org/data"}, "training": {"workers": 2, "gpusPerWorker": 4},
    "evaluation": {"tasks": [], "gpus": 1, "baseline": True},
}  # fmt: skip


def at(seconds: float) -> str:
    return stamp(NOW + timedelta(seconds=seconds))


def world_with_training() -> World:
    """A run on GPUs whose training has a child; time 0 is NOW."""
    world = World.new(SPEC)
    world.write_status(plan(run_of(world), Observed(PLACE), NOW).status)
    for _ in range(8):
        go(world, settings=PLACE)
        if stage(world, "training").child_uid:
            return world
        for ref in world.active():
            if world.stage_of(ref) not in ("training", "baseline"):
                world.finish(ref)
    raise AssertionError("training never ran")


def running(rank: int, since: float, **changes: Any) -> PodReport:
    return replace(PodReport(f"train-{rank}", rank, "Running", running_since=at(since)), **changes)


def ended(rank: int, start: float, end: float, code: int = 0, message: str = "") -> PodReport:
    phase = "Succeeded" if code == 0 else "Failed"
    return PodReport(f"train-{rank}", rank, phase, Termination(code, "", message, at(end), at(start)))


def look(world: World, seconds: float, **pods: tuple[PodReport, ...]) -> dict[str, Any]:
    """One pass at a time, with these pods of each stage; other stages have none."""
    return dict(go(world, NOW + timedelta(seconds=seconds), settings=PLACE, pods=pods).status)


def usage(world: World) -> float:
    return float((run_of(world).status.get("usage") or {}).get("gpuSeconds", 0.0))


def test_a_running_attempt_is_marked_and_not_counted_yet() -> None:
    world = world_with_training()
    look(world, 30, training=(running(0, 12), running(1, 10)))
    assert stage(world, "training").pods_started_at == at(10)
    look(world, 60, training=(running(0, 12), running(1, 10)))
    assert (stage(world, "training").pods_started_at, usage(world)) == (at(10), 0.0)


def test_each_pod_is_counted_from_its_own_start_to_its_own_end() -> None:
    world = world_with_training()
    look(world, 30, training=(running(0, 12), running(1, 10)))
    message = world.success_message(child(world, "training"))
    look(world, 300, training=(ended(0, 12, 112, message=message), ended(1, 10, 100)))
    assert (stage(world, "training").state, stage(world, "training").pods_started_at) == ("Succeeded", None)
    assert usage(world) == (100 + 90) * 4


def test_an_attempt_that_is_first_seen_at_its_end_is_counted() -> None:
    world = world_with_training()
    look(world, 300, training=(ended(0, 0, 7, 1), ended(1, 2, 7, 1)))
    assert (stage(world, "training").state, usage(world)) == ("Retrying", (7 + 5) * 4)


def test_failed_attempts_count_and_pauses_do_not() -> None:
    world = world_with_training()
    look(world, 20, training=(ended(0, 0, 10, 75), running(1, 0)))
    assert stage(world, "training").state == "Retrying"
    assert usage(world) == (10 + 20) * 4, "the other rank ran until the failure was seen"
    look(world, 1000)
    look(world, 1001)
    assert (stage(world, "training").attempt, stage(world, "training").state) == (2, "Running")
    message = world.success_message(child(world, "training"))
    look(world, 1100, training=(ended(0, 1010, 1050, message=message), ended(1, 1010, 1050)))
    assert usage(world) == (10 + 20) * 4 + (40 + 40) * 4


def test_pods_that_disappeared_are_counted_until_that_is_noticed() -> None:
    world = world_with_training()
    look(world, 30, training=(running(0, 10), running(1, 10)))
    world.remove(child(world, "training"))
    look(world, 50, training=(running(0, 10, gone=True),))
    assert stage(world, "training").failures == {"Lost": 1}
    assert usage(world) == (40 + 40) * 4


def test_a_pod_that_never_started_does_not_count() -> None:
    world = world_with_training()
    look(world, 30, training=(running(0, 10), PodReport("train-1", 1)))
    look(world, 50, training=(ended(0, 10, 40, 1), PodReport("train-1", 1)))
    assert usage(world) == 30 * 4


def test_evaluation_and_baseline_count_and_stages_without_gpus_do_not() -> None:
    world = world_with_training()
    baseline = PodReport("base-0", 0, "Running", running_since=at(5))
    look(world, 10, training=(running(0, 0), running(1, 0)))
    look(world, 12, training=(running(0, 0), running(1, 0)))
    assert stage(world, "baseline").child_name
    look(world, 15, training=(running(0, 0), running(1, 0)), baseline=(baseline,))
    look(world, 16, training=(running(0, 0), running(1, 0)), baseline=(replace(baseline, running_since=at(5)),))
    message = world.success_message(child(world, "baseline"))
    done = PodReport("base-0", 0, "Succeeded", Termination(0, "", message, at(25), at(5)))
    look(world, 30, training=(running(0, 0), running(1, 0)), baseline=(done,))
    assert (stage(world, "baseline").state, usage(world)) == ("Succeeded", 20.0)
    assert stage(world, "dataset").pods_started_at is None


def test_suspended_time_does_not_count_and_is_counted_once() -> None:
    world = world_with_training()
    look(world, 30, training=(running(0, 10), running(1, 10)))
    world.run = {**world.run, "spec": {**world.run["spec"], "suspend": True}}
    stopping = (running(0, 10, gone=True), running(1, 10, gone=True))
    look(world, 40, training=stopping)
    look(world, 41, training=stopping)
    assert (stage(world, "training").reason, usage(world)) == ("Suspended", 0.0), "the containers still run"
    look(world, 50)
    assert (usage(world), stage(world, "training").pods_started_at) == (40 * 4 * 2, None)
    look(world, 500)
    world.run = {**world.run, "spec": {**world.run["spec"], "suspend": False}}
    look(world, 600)
    look(world, 610, training=(running(0, 605), running(1, 605)))
    message = world.success_message(child(world, "training"))
    look(world, 700, training=(ended(0, 605, 615, message=message), ended(1, 605, 615)))
    assert usage(world) == 40 * 4 * 2 + 10 * 4 * 2


def test_a_stage_that_is_stopped_because_another_failed_counts() -> None:
    world = world_with_training()
    look(world, 10, training=(running(0, 0), running(1, 0)))
    look(world, 12, training=(running(0, 0), running(1, 0)))
    baseline = PodReport("base-0", 0, "Failed", Termination(65, "", "", at(20), at(12)))
    for seconds in (20, 21, 22):
        look(world, seconds, training=(running(0, 0), running(1, 0)), baseline=(baseline,))
    world.remove(child(world, "training")) if child(world, "training") in world.objects else None
    for seconds in (23, 24):
        look(world, seconds)
    assert stage(world, "training").pods_started_at is None
    assert usage(world) > 0


def test_the_end_of_the_run_keeps_the_sum_of_all_rounds() -> None:
    world = world_with_training()
    message = world.success_message(child(world, "training"))
    look(world, 30, training=(ended(0, 0, 20, message=message), ended(1, 0, 20)))
    world.settle()
    assert run_of(world).status["usage"]["gpuSeconds"] == 160.0
    edit(world, rerun={"id": "2", "from": "evaluation"})
    for _ in range(12):
        pods = timed_pods(world, 102, 112)
        go(world, NOW + timedelta(seconds=120), settings=PLACE, pods=pods)
        for ref in world.active():
            world.finish(ref)
    assert run_of(world).status["usage"] == {"gpuSeconds": 160.0 + 10.0 + 10.0, "wallSeconds": 120.0}, (
        "evaluation and baseline again"
    )
    assert run_of(world).round == 2


def timed_pods(world: World, start: float, end: float) -> dict[str, tuple[PodReport, ...]]:
    """The pods of the world, which all ran in the same time."""
    found = {}
    for name, pods in observed(world).pods.items():
        found[name] = tuple(
            replace(pod, termination=pod.termination and replace(pod.termination, started_at=at(start), finished_at=at(end)))
            for pod in pods
        )
    return found


@pytest.mark.parametrize("missing", ["running_since", "finished_at"])
def test_a_kubelet_that_leaves_out_times(missing: str) -> None:
    world = world_with_training()
    look(world, 30, training=(running(0, 10), running(1, 10)))
    pods = {
        "running_since": (running(0, 10), replace(running(1, 10), running_since=None)),
        "finished_at": (PodReport("train-0", 0, "Failed", Termination(1, started_at=at(10))), ended(1, 10, 20, 1)),
    }
    look(world, 50, training=pods[missing])
    found = {"running_since": 0.0, "finished_at": (40 + 10) * 4}
    assert usage(world) == found[missing]
