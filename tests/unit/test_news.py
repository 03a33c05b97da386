"""What the watches told: which event wakes a run, and when pods are taken as told."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import Any

import pytest

from finetune_operator.api.kinds import FINETUNERUN, JOB, POD, Kind
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.run import Run, StageStatus
from finetune_operator.core.settings import Settings
from finetune_operator.core.waiting import STARTING_SECONDS
from finetune_operator.loop.controller import Controller
from finetune_operator.loop.news import RUNNING_SECONDS, TOGETHER_SECONDS, News
from world import NOW, SETTINGS, World

KEY = ("team", "demo")
LABELS = {"finetunerun.io/run": "demo", "finetunerun.io/stage": "dataset", "finetunerun.io/attempt": "1.1"}
RECORD = StageStatus("dataset", attempt=1, state="Running")
Object = dict[str, Any]


def job(uid: str = "j", **status: Any) -> Object:
    metadata = {
        "name": "demo-dataset-1-1",
        "namespace": "team",
        "uid": uid,
        "labels": LABELS,
        "resourceVersion": str(len(status)),
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {}, "status": status}


def pod(uid: str = "p", phase: str = "Pending", node: str = "") -> Object:
    metadata = {"name": f"demo-dataset-1-1-{uid}", "namespace": "team", "uid": uid, "labels": LABELS}
    return {"metadata": metadata, "spec": {"nodeName": node} if node else {}, "status": {"phase": phase}}


def left(version: str) -> Object:
    return {"metadata": {"name": "demo", "resourceVersion": version, "managedFields": [{}]}, "spec": {}}


@pytest.fixture
def news() -> News:
    return News()


def under_way(news: News, child: Object) -> None:
    """An attempt as a watch tells of it that this process has begun."""
    news.making(KEY, child)
    news.of_child(KEY, JOB, child, "ADDED", busy=False)
    news.of_child(KEY, POD, pod(phase="Running", node="n"), "ADDED", busy=False)


def pods_told(news: News) -> tuple[PodReport, ...] | None:
    told = news.attempt(KEY, RECORD)
    return told.pods if told else None


def test_what_counts_pods_is_no_news_of_a_child(news: News) -> None:
    complete = {"conditions": [{"type": "Complete", "status": "True"}]}
    assert news.of_child(KEY, JOB, job(), "ADDED", busy=False) == 0.0
    assert news.of_child(KEY, JOB, job(active=1, startTime="2026-11-21T10:00:00Z"), "MODIFIED", busy=False) is None
    assert news.of_child(KEY, JOB, job(succeeded=1, **complete), "MODIFIED", busy=False) == 0.0
    assert news.of_child(KEY, JOB, job(**complete), "MODIFIED", busy=False) is None
    assert news.of_child(KEY, JOB, job(**complete), "DELETED", busy=False) == 0.0
    assert news.of_child(KEY, JOB, job("another", **complete), "ADDED", busy=False) == 0.0


def test_what_a_stage_has_left_behind_wakes_nobody(news: News) -> None:
    news.passed(KEY, [RECORD], "1", left("1"))
    assert news.of_child(KEY, JOB, job(), "ADDED", busy=False) == 0.0
    news.passed(KEY, [RECORD.but(name="training")], "2", left("2"))
    ended = job(conditions=[{"type": "Complete", "status": "True"}])
    assert news.of_child(KEY, JOB, ended, "MODIFIED", busy=False) is None
    assert news.of_child(KEY, POD, pod(phase="Succeeded"), "MODIFIED", busy=False) is None
    assert news.of_child(KEY, JOB, ended, "DELETED", busy=False) is None
    assert news.of_child(KEY, JOB, job("just-made"), "ADDED", busy=True) == 0.0, "by a pass that is under way"


def test_a_pod_that_begins_as_all_do_is_no_news(news: News) -> None:
    """Only what may keep it from starting is to be seen within seconds."""
    assert news.of_child(KEY, POD, pod(), "ADDED", busy=False) == STARTING_SECONDS
    assert news.of_child(KEY, POD, pod(node="n"), "MODIFIED", busy=False) == STARTING_SECONDS
    assert news.of_child(KEY, POD, pod(node="n"), "MODIFIED", busy=False) is None
    news.making(KEY, job())
    news.of_child(KEY, JOB, job(), "ADDED", busy=False)
    assert [report.placed for report in pods_told(news) or ()] == [True]
    assert news.of_child(KEY, POD, pod("q", phase="Failed"), "ADDED", busy=False) == 0.0


def test_a_container_that_cannot_start_is_news_at_once(news: News) -> None:
    def waits(word: str) -> Object:
        report = pod(node="n")
        report["status"]["containerStatuses"] = [{"name": "stage", "state": {"waiting": {"reason": word, "message": "..."}}}]
        return report

    news.of_child(KEY, POD, pod(node="n"), "ADDED", busy=False)
    assert news.of_child(KEY, POD, waits("ContainerCreating"), "MODIFIED", busy=False) is None
    assert news.of_child(KEY, POD, waits("ErrImagePull"), "MODIFIED", busy=False) == 0.0
    assert news.of_child(KEY, POD, waits("ContainerCreating"), "MODIFIED", busy=False) == 0.0
    assert news.of_child(KEY, POD, pod(phase="Running", node="n"), "MODIFIED", busy=False) == RUNNING_SECONDS
    assert news.of_child(KEY, POD, pod(phase="Succeeded", node="n"), "MODIFIED", busy=False) == 0.0


def test_ends_that_come_together_are_looked_at_together(news: News) -> None:
    def ended(uid: str, phase: str = "Succeeded", **labels: str) -> float | None:
        report = pod(uid, phase, "n")
        report["metadata"]["labels"] = LABELS | {f"finetunerun.io/{name}": value for name, value in labels.items()}
        return news.of_child(KEY, POD, report, "MODIFIED", busy=False)

    news.passed(KEY, [RECORD, RECORD.but(name="model")], "1", left("1"))
    assert ended("p") == TOGETHER_SECONDS
    assert ended("p", "Failed") == 0.0, "a failure is looked at, at once"
    assert ended("p") == TOGETHER_SECONDS
    assert ended("q", stage="model") == 0.0, "nothing goes on any more"
    news.passed(KEY, [RECORD.but(name="training")], "2", left("2"))
    assert ended("r", "Running", stage="training") == RUNNING_SECONDS
    assert ended("s", stage="training") == TOGETHER_SECONDS, "the other worker"
    assert ended("r", stage="training") == 0.0


def test_a_condition_that_does_not_hold_is_no_news(news: News) -> None:
    news.of_child(KEY, JOB, job(), "ADDED", busy=False)
    resumed = job(conditions=[{"type": "Suspended", "status": "False", "reason": "JobResumed"}])
    assert news.of_child(KEY, JOB, resumed, "MODIFIED", busy=False) is None


def test_a_child_of_our_own_making_wakes_nobody_by_being_there(news: News) -> None:
    news.making(KEY, job())
    assert news.of_child(KEY, JOB, job(), "ADDED", busy=True) is None
    assert news.of_child(KEY, JOB, job(conditions=[{"type": "Failed", "status": "True"}]), "MODIFIED", busy=False) == 0.0
    news.making(KEY, job())
    news.not_made(KEY, job())
    assert news.of_child(KEY, JOB, job("of somebody else"), "ADDED", busy=False) == 0.0


def test_an_annotation_and_progress_are_news(news: News) -> None:
    news.of_child(KEY, JOB, job(), "ADDED", busy=False)
    annotated = job()
    annotated["metadata"]["annotations"] = {"trainer.opendatahub.io/trainerStatus": "{}"}
    assert news.of_child(KEY, JOB, annotated, "MODIFIED", busy=False) == 0.0
    assert news.of_child(KEY, JOB, job(trainerStatus={"progressPercentage": 3}), "MODIFIED", busy=False) == 0.0


def test_an_attempt_is_taken_as_told_only_if_its_child_is_of_our_own_making(news: News) -> None:
    news.of_child(KEY, JOB, job(), "ADDED", busy=False)
    news.of_child(KEY, POD, pod(), "ADDED", busy=False)
    assert news.attempt(KEY, RECORD) is None, "somebody else made the child: pods may have come and gone before"
    news.making(KEY, job())
    assert [report.phase for report in pods_told(news) or ()] == ["Pending"]
    assert news.of_child(KEY, POD, pod(phase="Running", node="n"), "MODIFIED", busy=False) == RUNNING_SECONDS
    assert news.of_child(KEY, POD, pod(phase="Running", node="n"), "MODIFIED", busy=False) is None
    assert [report.phase for report in pods_told(news) or ()] == ["Running"]
    assert news.attempt(KEY, RECORD.but(attempt=2)) is None
    news.of_child(KEY, POD, pod(), "DELETED", busy=False)
    assert pods_told(news) == ()
    news.of_child(KEY, JOB, job(), "DELETED", busy=False)
    assert news.attempt(KEY, RECORD) is None, "nothing is told of the attempt any more"


def test_a_child_as_told_is_what_decisions_read_of_it(news: News) -> None:
    child = job(active=1, conditions=[{"type": "Suspended", "status": "False"}], trainerStatus={"progressPercentage": 3})
    child["metadata"] |= {"annotations": {"a": "b"}, "ownerReferences": [{"uid": "run"}], "managedFields": [{}], "generation": 2}
    child["spec"] = {"suspend": False, "template": {}}
    under_way(news, child)
    told = news.attempt(KEY, RECORD)
    assert told is not None
    assert told.child == {
        "metadata": {
            "name": "demo-dataset-1-1", "namespace": "team", "uid": "j", "labels": LABELS, "annotations": {"a": "b"},
            "ownerReferences": [{"uid": "run"}],
        },
        "spec": {"suspend": False}, "status": {"conditions": [], "trainerStatus": {"progressPercentage": 3}},
    }  # fmt: skip


def holds(condition: str) -> Object:
    return job(conditions=[{"type": condition, "status": "True"}])


@pytest.mark.parametrize("child", [holds("Complete"), holds("Failed"), holds("Suspended"), job() | {"spec": {"suspend": True}}])
def test_a_child_that_has_ended_or_is_held_is_asked_for(news: News, child: Object) -> None:
    """Its word may come before that of its pods."""
    under_way(news, job())
    assert news.attempt(KEY, RECORD) is not None
    news.of_child(KEY, JOB, child, "MODIFIED", busy=False)
    assert news.attempt(KEY, RECORD) is None


def test_what_went_wrong_is_asked_for(news: News) -> None:
    under_way(news, job())
    news.of_child(KEY, POD, pod(phase="Failed", node="n"), "MODIFIED", busy=False)
    assert news.attempt(KEY, RECORD) is None
    leaves = pod(phase="Running", node="n")
    leaves["metadata"]["deletionTimestamp"] = "2026-11-21T10:00:00Z"
    news.of_child(KEY, POD, leaves, "MODIFIED", busy=False)
    assert news.attempt(KEY, RECORD) is None
    news.of_child(KEY, POD, pod(phase="Running", node="n"), "MODIFIED", busy=False)
    assert news.attempt(KEY, RECORD) is not None
    assert news.attempt(KEY, RECORD.but(state="Retrying")) is None, "its child is being removed"
    news.of_child(KEY, JOB, job("of somebody else"), "ADDED", busy=False)
    assert news.attempt(KEY, RECORD) is None


def test_pods_that_nobody_may_watch_are_asked_for(news: News) -> None:
    news.making(KEY, job())
    news.of_child(KEY, JOB, job(), "ADDED", busy=False)
    assert news.attempt(KEY, RECORD) is None, "the watch of pods may be forbidden"
    news.of_child(("team", "other"), POD, pod("q"), "ADDED", busy=False)
    assert pods_told(news) == ()


@pytest.mark.parametrize("told", [None, "ADDED"])
@pytest.mark.parametrize("kind", [JOB, POD])
def test_a_break_of_a_watch_ends_the_trust(news: News, told: Any, kind: Kind) -> None:
    """What was deleted during the break is never told; the next list tells those that are there once more."""
    other: Object = pod("q") if kind == POD else job("k")
    under_way(news, job())
    news.of_child(("team", "other"), kind, other, "ADDED", busy=False)
    assert news.attempt(KEY, RECORD) is not None
    news.of_child(("team", "other"), kind, other, told, busy=False)
    assert news.attempt(KEY, RECORD) is None
    news.making(KEY, job())
    assert news.attempt(KEY, RECORD) is not None


def test_our_own_writing_wakes_nobody(news: News) -> None:
    assert news.of_run(KEY, "1", busy=False)
    assert not news.of_run(KEY, "2", busy=True), "the pass itself will tell"
    assert not news.passed(KEY, (), "1", left("2"))
    assert not news.of_run(KEY, "2", busy=False), "told late"
    assert news.of_run(KEY, "3", busy=False), "somebody's edit"


def test_our_own_writing_is_known_when_it_is_told_after_the_next_pass(news: News) -> None:
    for version in range(1, 20):
        assert not news.passed(KEY, (), str(version), left(str(version + 1)))
    assert not any(news.of_run(KEY, str(version), busy=False) for version in (17, 18, 19, 20))
    assert news.of_run(KEY, "2", busy=False), "so old that nobody remembers: one read more"


def test_an_edit_during_a_pass_is_not_lost(news: News) -> None:
    news.of_run(KEY, "2", busy=True)
    news.of_run(KEY, "3", busy=True)
    assert news.passed(KEY, (), "1", left("2"))
    assert not news.passed(KEY, (), "3", left("3"))


def test_a_run_is_read_again_unless_it_is_known_to_be_as_we_left_it(news: News) -> None:
    news.passed(KEY, (), "1", left("2"))
    assert news.take(KEY) is None, "nobody watches it"
    news.of_run(KEY, "2", busy=False)
    news.passed(KEY, (), "2", left("2"))
    assert news.take(KEY) == {"metadata": {"name": "demo", "resourceVersion": "2"}, "spec": {}}
    assert news.take(KEY) is None, "if that pass fails, the next one reads"
    news.passed(KEY, (), "2", left("3"))
    news.of_run(KEY, "4", busy=False)
    assert news.take(KEY) is None, "somebody has edited it"
    news.of_run(KEY, "5", busy=True)
    news.passed(KEY, (), "4", left("4"))
    assert news.take(KEY) is None, "somebody has edited it during the pass"
    news.passed(KEY, (), "5", left("5"))
    news.forget(KEY)
    assert news.take(KEY) is None


def ended() -> World:
    world = World.new()
    world.settle()
    return world


class Told:
    """A controller that hears, and what it would look at."""

    def __init__(self, now: datetime = NOW) -> None:
        self.controller = Controller(None, self._settings, clock=lambda: now)  # type: ignore[arg-type] # it only hears

    async def _settings(self, _namespace: str) -> Settings:
        return SETTINGS

    async def wakes(self, document: Object, kind: Any = FINETUNERUN, told: Any = "MODIFIED") -> bool:
        self.controller.hear(kind, document, told)
        if not len(self.controller.queue):
            return False
        self.controller.queue.done(await self.controller.queue.get())
        return True


def version(document: Object, version: str, **spec: Any) -> Object:
    changed = copy.deepcopy(document)
    changed["metadata"] |= {"resourceVersion": version, "generation": int(version)}
    changed["spec"] |= spec
    return changed


async def test_an_ended_run_and_its_children_wake_nobody_until_it_changes() -> None:
    document = ended().run
    assert Run.parse(document).ended
    told = Told()
    assert not await told.wakes(version(document, "1"), told=None)
    assert not await told.wakes(job(succeeded=1, conditions=[]), JOB)
    assert not await told.wakes(pod(phase="Succeeded"), POD, "DELETED")
    assert await told.wakes(version(document, "2", rerun={"id": "again", "from": "training"}))
    assert await told.wakes(job("new"), JOB, "ADDED")


async def test_an_ended_run_is_looked_at_when_its_children_are_to_go() -> None:
    assert await Told(NOW + timedelta(hours=25)).wakes(version(ended().run, "1"), told=None)


async def test_a_run_that_is_listed_is_read_whole() -> None:
    told = Told()
    document = version(World.new().run, "1")
    assert await told.wakes(document, told="ADDED")
    told.controller._news.passed(KEY, (), "1", document)
    assert not await told.wakes(document)
    assert await told.wakes(document, told=None)
