"""What the watches told: which event wakes a run, and when pods are taken as told."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import Any

import pytest

from finetune_operator.api.kinds import FINETUNERUN, JOB, POD
from finetune_operator.core.attempt import STARTING_SECONDS
from finetune_operator.core.run import Run, StageRecord
from finetune_operator.core.settings import Settings
from finetune_operator.loop.controller import Controller
from finetune_operator.loop.news import RUNNING_SECONDS, News
from world import NOW, SETTINGS, World

KEY = ("team", "demo")
LABELS = {"finetunerun.io/run": "demo", "finetunerun.io/stage": "dataset", "finetunerun.io/attempt": "1.1"}
RECORD = StageRecord("dataset", attempt=1)
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
    assert [report.placed for report in news.pods(KEY, RECORD) or ()] == [True]
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


def test_pods_are_taken_as_told_only_for_children_of_our_own_making(news: News) -> None:
    news.of_child(KEY, POD, pod(), "ADDED", busy=False)
    assert news.pods(KEY, RECORD) is None, "somebody else made the child: pods may have come and gone before"
    news.making(KEY, job())
    assert [report.phase for report in news.pods(KEY, RECORD) or ()] == ["Pending"]
    assert news.of_child(KEY, POD, pod(phase="Running", node="n"), "MODIFIED", busy=False) == RUNNING_SECONDS
    assert news.of_child(KEY, POD, pod(phase="Running", node="n"), "MODIFIED", busy=False) is None
    assert [report.phase for report in news.pods(KEY, RECORD) or ()] == ["Running"]
    assert news.pods(KEY, RECORD.but(attempt=2)) is None
    news.of_child(KEY, POD, pod(), "DELETED", busy=False)
    assert news.pods(KEY, RECORD) is None, "nothing is told of the attempt any more"
    news.of_child(KEY, JOB, job(), "ADDED", busy=False)
    assert news.pods(KEY, RECORD) == ()


def test_pods_that_nobody_may_watch_are_asked_for(news: News) -> None:
    news.making(KEY, job())
    news.of_child(KEY, JOB, job(), "ADDED", busy=False)
    assert news.pods(KEY, RECORD) is None, "the watch of pods may be forbidden"
    news.of_child(("team", "other"), POD, pod("q"), "ADDED", busy=False)
    assert news.pods(KEY, RECORD) == ()


@pytest.mark.parametrize("told", [None, "ADDED"])
def test_a_break_of_the_watch_ends_the_trust(news: News, told: Any) -> None:
    """A pod that was deleted during the break is never told; the next list tells those that are there once more."""
    news.making(KEY, job())
    news.of_child(KEY, POD, pod(), "ADDED", busy=False)
    news.of_child(("team", "other"), POD, pod("q"), "ADDED", busy=False)
    news.of_child(("team", "other"), POD, pod("q"), told, busy=False)
    assert news.pods(KEY, RECORD) is None
    news.making(KEY, job())
    assert news.pods(KEY, RECORD) is not None


def test_our_own_writing_wakes_nobody(news: News) -> None:
    assert news.of_run(KEY, "1", busy=False)
    assert not news.of_run(KEY, "2", busy=True), "the pass itself will tell"
    assert not news.passed(KEY, (), "1", left("2"))
    assert not news.of_run(KEY, "2", busy=False), "told late"
    assert news.of_run(KEY, "3", busy=False), "somebody's edit"


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
