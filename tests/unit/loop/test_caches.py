"""Caches of runs and children: which event requires a pass, and when an attempt is served from the cache."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import Any

import pytest

from finetune_operator.api.kinds import FINETUNERUN, JOB, POD, Kind
from finetune_operator.core.child_view import RUNNING_SECONDS, TOGETHER_SECONDS
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.run import Run, StageStatus
from finetune_operator.core.settings import Settings
from finetune_operator.core.waiting import STARTING_SECONDS
from finetune_operator.loop.child_cache import CachedAttempt, ChildCache
from finetune_operator.loop.controller import Controller
from finetune_operator.loop.expectations import Expectations
from finetune_operator.loop.lineage import Lineage
from finetune_operator.loop.run_cache import RunCache
from world import NOW, SETTINGS, World

KEY = ("team", "demo")
OTHER = ("team", "other")
LABELS = {"finetunerun.io/run": "demo", "finetunerun.io/stage": "dataset", "finetunerun.io/attempt": "1.1"}
STAGE_STATUS = StageStatus("dataset", attempt=1, state="Running")
Object = dict[str, Any]


def job(uid: str = "j", **status: Any) -> Object:
    metadata = {
        "name": "demo-dataset-1-1",
        "namespace": "team",
        "uid": uid,
        "ownerReferences": [{"uid": "run", "controller": True}],
        "labels": LABELS,
        "resourceVersion": str(len(status)),
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {}, "status": status}


def pod(uid: str = "p", phase: str = "Pending", node: str = "") -> Object:
    owners = [{"uid": "j", "controller": True}]
    metadata = {"name": f"demo-dataset-1-1-{uid}", "namespace": "team", "uid": uid, "labels": LABELS, "ownerReferences": owners}
    return {"metadata": metadata, "spec": {"nodeName": node} if node else {}, "status": {"phase": phase}}


def written(version: str) -> Object:
    return {"metadata": {"name": "demo", "resourceVersion": version, "managedFields": [{}]}, "spec": {}}


class Children:
    """A child cache with its expectations, as the controller has them."""

    def __init__(self) -> None:
        self.expectations = Expectations()
        self.lineage = Lineage()
        self.cache = ChildCache(self.expectations, self.lineage)

    def on_event(
        self, kind: Kind, item: Object, event_type: Any, *, key: tuple[str, str] = KEY, busy: bool = False
    ) -> float | None:
        return self.cache.on_event(key, kind, item, event_type, busy=busy)

    def create(self, child: Object) -> None:
        self.expectations.expect_creation(KEY, child)

    def attempt(self, stage_status: StageStatus = STAGE_STATUS) -> CachedAttempt | None:
        return self.cache.attempt(KEY, "run", stage_status)

    def pods(self) -> tuple[PodReport, ...] | None:
        cached = self.attempt()
        return cached.pods if cached else None

    def start(self, child: Object) -> None:
        """An attempt that this process has created and that runs."""
        self.create(child)
        self.on_event(JOB, child, "ADDED")
        self.on_event(POD, pod(phase="Running", node="n"), "ADDED")


@pytest.fixture
def children() -> Children:
    return Children()


@pytest.fixture
def runs() -> RunCache:
    return RunCache()


def test_fields_that_count_pods_require_no_pass(children: Children) -> None:
    complete = {"conditions": [{"type": "Complete", "status": "True"}]}
    assert children.on_event(JOB, job(), "ADDED") == 0.0
    assert children.on_event(JOB, job(active=1, startTime="2026-11-21T10:00:00Z"), "MODIFIED") is None
    assert children.on_event(JOB, job(succeeded=1, **complete), "MODIFIED") == 0.0
    assert children.on_event(JOB, job(**complete), "MODIFIED") is None
    assert children.on_event(JOB, job(**complete), "DELETED") == 0.0
    assert children.on_event(JOB, job("another", **complete), "ADDED") == 0.0


def test_children_of_stages_that_have_ended_require_no_pass(children: Children) -> None:
    children.cache.observe_pass(KEY, [STAGE_STATUS])
    assert children.on_event(JOB, job(), "ADDED") == 0.0
    children.cache.observe_pass(KEY, [STAGE_STATUS.but(name="training")])
    ended = job(conditions=[{"type": "Complete", "status": "True"}])
    assert children.on_event(JOB, ended, "MODIFIED") is None
    assert children.on_event(POD, pod(phase="Succeeded"), "MODIFIED") is None
    assert children.on_event(JOB, ended, "DELETED") is None
    assert children.on_event(JOB, job("just-made"), "ADDED", busy=True) == 0.0, "it may be created by the pass that is under way"


def test_a_normal_start_of_a_pod_requires_no_immediate_pass(children: Children) -> None:
    """A pass within seconds checks that nothing prevents it."""
    assert children.on_event(POD, pod(), "ADDED") == STARTING_SECONDS
    assert children.on_event(POD, pod(node="n"), "MODIFIED") == STARTING_SECONDS
    assert children.on_event(POD, pod(node="n"), "MODIFIED") is None
    children.create(job())
    children.on_event(JOB, job(), "ADDED")
    assert [report.placed for report in children.pods() or ()] == [True]
    assert children.on_event(POD, pod("q", phase="Failed"), "ADDED") == 0.0


def test_a_container_that_cannot_start_requires_an_immediate_pass(children: Children) -> None:
    def waits(word: str) -> Object:
        report = pod(node="n")
        report["status"]["containerStatuses"] = [{"name": "stage", "state": {"waiting": {"reason": word, "message": "..."}}}]
        return report

    children.on_event(POD, pod(node="n"), "ADDED")
    assert children.on_event(POD, waits("ContainerCreating"), "MODIFIED") is None
    assert children.on_event(POD, waits("ErrImagePull"), "MODIFIED") == 0.0
    assert children.on_event(POD, waits("ContainerCreating"), "MODIFIED") == 0.0
    assert children.on_event(POD, pod(phase="Running", node="n"), "MODIFIED") == RUNNING_SECONDS
    assert children.on_event(POD, pod(phase="Succeeded", node="n"), "MODIFIED") == 0.0


def test_one_pass_handles_pods_that_end_together(children: Children) -> None:
    def ended(uid: str, phase: str = "Succeeded", **labels: str) -> float | None:
        report = pod(uid, phase, "n")
        report["metadata"]["labels"] = LABELS | {f"finetunerun.io/{name}": value for name, value in labels.items()}
        return children.on_event(POD, report, "MODIFIED")

    children.cache.observe_pass(KEY, [STAGE_STATUS, STAGE_STATUS.but(name="model")])
    assert ended("p") == TOGETHER_SECONDS
    assert ended("p", "Failed") == 0.0, "a failure requires an immediate pass"
    assert ended("p") == TOGETHER_SECONDS
    assert ended("q", stage="model") == 0.0, "no attempt is left"
    children.cache.observe_pass(KEY, [STAGE_STATUS.but(name="training")])
    assert ended("r", "Running", stage="training") == RUNNING_SECONDS
    assert ended("s", stage="training") == TOGETHER_SECONDS, "the other worker"
    assert ended("r", stage="training") == 0.0


def test_a_condition_that_is_false_requires_no_pass(children: Children) -> None:
    children.on_event(JOB, job(), "ADDED")
    resumed = job(conditions=[{"type": "Suspended", "status": "False", "reason": "JobResumed"}])
    assert children.on_event(JOB, resumed, "MODIFIED") is None


def test_the_creation_of_an_expected_child_requires_no_pass(children: Children) -> None:
    children.create(job())
    assert children.on_event(JOB, job(), "ADDED", busy=True) is None
    assert children.on_event(JOB, job(conditions=[{"type": "Failed", "status": "True"}]), "MODIFIED") == 0.0
    children.create(job())
    children.expectations.forget_creation(KEY, job())
    assert children.on_event(JOB, job("of-another-process"), "ADDED") == 0.0


def test_annotations_and_progress_require_a_pass(children: Children) -> None:
    children.on_event(JOB, job(), "ADDED")
    annotated = job()
    annotated["metadata"]["annotations"] = {"trainer.opendatahub.io/trainerStatus": "{}"}
    assert children.on_event(JOB, annotated, "MODIFIED") == 0.0
    assert children.on_event(JOB, job(trainerStatus={"progressPercentage": 3}), "MODIFIED") == 0.0


def test_an_attempt_is_cached_only_if_this_process_created_its_child(children: Children) -> None:
    children.on_event(JOB, job(), "ADDED")
    children.on_event(POD, pod(), "ADDED")
    assert children.attempt() is None, "another process created the child: earlier pods may be gone"
    children.create(job())
    assert [report.phase for report in children.pods() or ()] == ["Pending"]
    assert children.on_event(POD, pod(phase="Running", node="n"), "MODIFIED") == RUNNING_SECONDS
    assert children.on_event(POD, pod(phase="Running", node="n"), "MODIFIED") is None
    assert [report.phase for report in children.pods() or ()] == ["Running"]
    assert children.attempt(STAGE_STATUS.but(attempt=2)) is None
    children.on_event(POD, pod(), "DELETED")
    assert children.pods() == ()
    children.on_event(JOB, job(), "DELETED")
    assert children.attempt() is None, "the child is gone"


def test_the_cached_child_is_its_view(children: Children) -> None:
    child = job(active=1, conditions=[{"type": "Suspended", "status": "False"}], trainerStatus={"progressPercentage": 3})
    child["metadata"] |= {
        "annotations": {"a": "b"},
        "ownerReferences": [{"uid": "run", "controller": True}],
        "managedFields": [{}],
        "generation": 2,
    }
    child["spec"] = {"suspend": False, "template": {}}
    children.start(child)
    cached = children.attempt()
    assert cached is not None
    assert cached.child == {
        "metadata": {
            "name": "demo-dataset-1-1", "namespace": "team", "uid": "j", "labels": LABELS, "annotations": {"a": "b"},
            "ownerReferences": [{"uid": "run", "controller": True}],
        },
        "spec": {"suspend": False}, "status": {"conditions": [], "trainerStatus": {"progressPercentage": 3}},
    }  # fmt: skip


def test_only_the_pods_of_the_child_count(children: Children) -> None:
    children.start(job())
    stranger = pod("stranger", phase="Failed", node="n")
    stranger["metadata"]["ownerReferences"] = []
    children.on_event(POD, stranger, "ADDED")
    assert [report.name for report in children.pods() or ()] == ["demo-dataset-1-1-p"]
    stranger["metadata"]["ownerReferences"] = [{"uid": "another", "controller": True}]
    children.on_event(POD, stranger, "MODIFIED")
    assert children.attempt() is None, "it may be a Job of the child's JobSet: that is read"
    children.lineage._remember("another", "j", ours=False)
    assert [report.name for report in children.pods() or ()] == ["demo-dataset-1-1-p"]


def test_a_child_of_another_run_with_our_labels_does_not_count(children: Children) -> None:
    children.start(job())
    stranger = job("stranger")
    stranger["metadata"]["ownerReferences"] = [{"uid": "an-earlier-run", "controller": True}]
    children.on_event(JOB, stranger, "ADDED")
    cached = children.attempt()
    assert cached is not None
    assert cached.child["metadata"]["uid"] == "j"


def holds(condition: str) -> Object:
    return job(conditions=[{"type": condition, "status": "True"}])


@pytest.mark.parametrize("child", [holds("Complete"), holds("Failed"), holds("Suspended"), job() | {"spec": {"suspend": True}}])
def test_a_child_that_has_ended_or_is_suspended_is_read(children: Children, child: Object) -> None:
    """Its end may be reported before those of its pods."""
    children.start(job())
    assert children.attempt() is not None
    children.on_event(JOB, child, "MODIFIED")
    assert children.attempt() is None


def test_failures_are_read(children: Children) -> None:
    children.start(job())
    children.on_event(POD, pod(phase="Failed", node="n"), "MODIFIED")
    assert children.attempt() is None
    leaves = pod(phase="Running", node="n")
    leaves["metadata"]["deletionTimestamp"] = "2026-11-21T10:00:00Z"
    children.on_event(POD, leaves, "MODIFIED")
    assert children.attempt() is None
    children.on_event(POD, pod(phase="Running", node="n"), "MODIFIED")
    assert children.attempt() is not None
    assert children.attempt(STAGE_STATUS.but(state="Retrying")) is None, "its child is being deleted"
    children.on_event(JOB, job("of-another-process"), "ADDED")
    assert children.attempt() is None


def test_pods_are_read_without_the_right_to_watch_them(children: Children) -> None:
    children.create(job())
    children.on_event(JOB, job(), "ADDED")
    assert children.attempt() is None, "the right to watch pods may be missing"
    children.on_event(POD, pod("q"), "ADDED", key=OTHER)
    assert children.pods() == ()


@pytest.mark.parametrize("event_type", [None, "ADDED"])
@pytest.mark.parametrize("kind", [JOB, POD])
def test_attempts_are_read_after_a_watch_was_interrupted(children: Children, event_type: Any, kind: Kind) -> None:
    """Deletions during the interruption are not reported; the next list reports the present objects again."""
    other: Object = pod("q") if kind == POD else job("k")
    children.start(job())
    children.on_event(kind, other, "ADDED", key=OTHER)
    assert children.attempt() is not None
    children.on_event(kind, other, event_type, key=OTHER)
    assert children.attempt() is None
    children.create(job())
    assert children.attempt() is not None


def test_own_writes_require_no_pass(runs: RunCache) -> None:
    assert runs.on_event(KEY, "1", busy=False)
    assert not runs.on_event(KEY, "2", busy=True), "the pass itself checks the version"
    assert not runs.observe_pass(KEY, "1", written("2"))
    assert not runs.on_event(KEY, "2", busy=False), "reported late"
    assert runs.on_event(KEY, "3", busy=False), "somebody's edit"


def test_own_writes_are_known_when_they_are_reported_after_later_passes(runs: RunCache) -> None:
    for version in range(1, 20):
        assert not runs.observe_pass(KEY, str(version), written(str(version + 1)))
    assert not any(runs.on_event(KEY, str(version), busy=False) for version in (17, 18, 19, 20))
    assert runs.on_event(KEY, "2", busy=False), "too old to be known: one more read"


def test_an_edit_during_a_pass_requires_another_one(runs: RunCache) -> None:
    runs.on_event(KEY, "2", busy=True)
    runs.on_event(KEY, "3", busy=True)
    assert runs.observe_pass(KEY, "1", written("2"))
    assert not runs.observe_pass(KEY, "3", written("3"))


def test_a_run_is_read_unless_it_is_as_the_last_pass_left_it(runs: RunCache) -> None:
    runs.observe_pass(KEY, "1", written("2"))
    assert runs.pop(KEY) is None, "no watch has reported it"
    runs.on_event(KEY, "2", busy=False)
    runs.observe_pass(KEY, "2", written("2"))
    assert runs.pop(KEY) == {"metadata": {"name": "demo", "resourceVersion": "2"}, "spec": {}}
    assert runs.pop(KEY) is None, "if that pass fails, the next one reads"
    runs.observe_pass(KEY, "2", written("3"))
    runs.on_event(KEY, "4", busy=False)
    assert runs.pop(KEY) is None, "somebody has edited it"
    runs.on_event(KEY, "5", busy=True)
    runs.observe_pass(KEY, "4", written("4"))
    assert runs.pop(KEY) is None, "somebody has edited it during the pass"
    runs.observe_pass(KEY, "5", written("5"))
    runs.forget(KEY)
    assert runs.pop(KEY) is None


def ended() -> World:
    world = World.new()
    world.settle()
    return world


class Watched:
    """A controller that only receives events."""

    def __init__(self, now: datetime = NOW) -> None:
        self.controller = Controller(None, self._settings, clock=lambda: now)  # type: ignore[arg-type] # it makes no pass

    async def _settings(self, _namespace: str) -> Settings:
        return SETTINGS

    async def requires_pass(self, document: Object, kind: Any = FINETUNERUN, event_type: Any = "MODIFIED") -> bool:
        self.controller.on_event(kind, document, event_type)
        if not len(self.controller.queue):
            return False
        self.controller.queue.done(await self.controller.queue.get())
        return True


def version(document: Object, version: str, **spec: Any) -> Object:
    changed = copy.deepcopy(document)
    changed["metadata"] |= {"resourceVersion": version, "generation": int(version)}
    changed["spec"] |= spec
    return changed


async def test_an_ended_run_and_its_children_require_no_pass_until_it_changes() -> None:
    document = ended().run
    assert Run.parse(document).ended
    watched = Watched()
    assert not await watched.requires_pass(version(document, "1"), event_type=None)
    assert not await watched.requires_pass(job(succeeded=1, conditions=[]), JOB)
    assert not await watched.requires_pass(pod(phase="Succeeded"), POD, "DELETED")
    assert await watched.requires_pass(version(document, "2", rerun={"id": "again", "from": "training"}))
    assert await watched.requires_pass(job("new"), JOB, "ADDED")


async def test_an_ended_run_requires_a_pass_when_its_children_expire() -> None:
    assert await Watched(NOW + timedelta(hours=25)).requires_pass(version(ended().run, "1"), event_type=None)


async def test_a_run_that_is_listed_is_read() -> None:
    watched = Watched()
    document = version(World.new().run, "1")
    assert await watched.requires_pass(document, event_type="ADDED")
    watched.controller._runs.observe_pass(KEY, "1", document)
    assert not await watched.requires_pass(document)
    assert await watched.requires_pass(document, event_type=None)


def test_a_write_of_a_failed_pass_requires_no_pass(runs: RunCache) -> None:
    """Otherwise the event about it would shorten the pause after the failure."""
    runs.on_event(KEY, "1", busy=False)
    runs.add_version(KEY, "2")
    assert not runs.on_event(KEY, "2", busy=False)
    assert runs.on_event(KEY, "3", busy=False)


def test_a_run_that_ends_during_a_pass_is_not_cached(runs: RunCache) -> None:
    runs.on_event(KEY, "1", busy=True)
    runs.mark_terminal(KEY)
    assert not runs.observe_pass(KEY, "1", written("2"))
    assert runs.is_terminal(KEY)
    assert runs.pop(KEY) is None
    assert runs.on_event(KEY, "3", busy=False)
    assert not runs.is_terminal(KEY)
