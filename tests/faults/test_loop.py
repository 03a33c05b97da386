"""The loop under faults of the API: an error before or after the effect, at every call of a whole run.

The cluster is the embedded store behind a connection that fails, and the test finishes the children. After any fault the run ends,
every child is created once, and nothing is written when nothing is left to do.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.progress import Progress, to_rhoai, to_trainer
from finetune_operator.api.kinds import FINETUNERUN, JOB, POD, TRAINJOB
from finetune_operator.core.run import Run
from finetune_operator.core.settings import Settings
from finetune_operator.core.trainjob_reports import RHOAI_STATUS
from finetune_operator.local.store import Store
from finetune_operator.loop.cluster import Object
from finetune_operator.loop.controller import Controller
from finetune_operator.loop.errors import AlreadyExists, ApiError, Conflict, Forbidden, Invalid, NotFound, Timeout, Transient
from world import NOW, SETTINGS

from .driven import KEY, REAL, SPEC, controlled_by, drive, everywhere, finish_children

_WRITES = ("create", "patch", "patch_status", "delete")


@dataclass
class FaultyCluster:
    """A cluster whose calls fail on demand. It counts its calls and the objects that were created."""

    inner: Store
    fail: Callable[[int, str], ApiError | None] = lambda _number, _call: None
    after: bool = False
    calls: int = 0
    created: Counter[tuple[str, str]] = field(default_factory=Counter)
    writes: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    """Names of the objects that could not be created."""

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.inner, name)
        if name not in (*_WRITES, "get", "get_metadata", "list", "pod_log"):
            return call

        async def made(*args: Any, **kwargs: Any) -> Any:
            number, self.calls = self.calls, self.calls + 1
            error = self.fail(number, name)
            if error is not None and not self.after:
                raise error
            try:
                found = await call(*args, **kwargs)
            except (Forbidden, Invalid):
                self.rejected[args[0]["metadata"]["name"]] += 1
                raise
            if name in _WRITES:
                self.writes[name] += 1
            if name == "create":
                self.created[(args[0]["kind"], args[0]["metadata"]["name"])] += 1
            if error is not None:
                raise error
            return found

        return made


async def test_a_run_without_faults_needs_few_writes_and_then_none(store: Store) -> None:
    cluster = FaultyCluster(store)
    run = await drive(store, cluster)
    assert run.status["phase"] == "Succeeded"
    writes = cluster.writes - Counter(create=sum(count for (kind, _), count in cluster.created.items() if kind == "Event"))
    assert sum(writes.values()) <= 24, writes
    before = cluster.writes.copy()
    await Controller(cluster, everywhere, clock=lambda: NOW).reconcile(KEY)
    assert cluster.writes == before


async def test_the_end_of_a_child_may_be_reported_before_those_of_its_pods(store: Store) -> None:
    """Each kind has its own watch. Here, no event about the pods arrives."""
    controller = Controller(store, everywhere, clock=lambda: NOW)
    somebody = {"name": "p", "namespace": "team", "uid": "p", "labels": {"finetunerun.io/run": "another"}}
    controller.on_event(POD, {"metadata": somebody}, "ADDED")
    for _ in range(40):
        await controller.reconcile(KEY)
        run = Run.parse(await store.get(FINETUNERUN, *KEY))
        if run.ended:
            break
        for kind in (FINETUNERUN, JOB, TRAINJOB):
            for item in (await store.list(kind, "team")).items:
                controller.on_event(kind, item, "MODIFIED")
        await finish_children(store)
    assert run.status["phase"] == "Succeeded"
    assert not any(record.failures for record in run.stages.values())


async def test_a_log_that_cannot_be_read_is_read_as_rarely_as_any(store: Store) -> None:
    asked: list[str] = []

    def fail(_number: int, call: str) -> ApiError | None:
        asked.extend([call] if call == "pod_log" else [])
        return Transient("no kubelet responds") if call == "pod_log" else None

    now = [NOW]
    controller = Controller(FaultyCluster(store, fail), everywhere, clock=lambda: now[0])
    while not (jobs := (await store.list(JOB, "team", labels={"finetunerun.io/stage": "dataset"})).items):
        await controller.reconcile(KEY)
    labels = {**jobs[0]["metadata"]["labels"]}
    pod = {"name": "p", "namespace": "team", "labels": labels, "ownerReferences": controlled_by(jobs[0])}
    await store.create({"apiVersion": "v1", "kind": "Pod", "metadata": pod, "spec": {"containers": [{"name": "stage"}]}})
    await store.patch_status(POD, "team", "p", {"status": {"phase": "Running"}})
    for _ in range(5):
        await controller.reconcile(KEY)
    assert len(asked) == 1
    now[0] += timedelta(seconds=SETTINGS.progress_seconds)
    for _ in range(5):
        await controller.reconcile(KEY)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("reported", "logs"),
    [(None, 21), ("annotation", 1), ("status", 1)],
    ids=["no report", "OpenShift AI reports", "Kubeflow Trainer reports"],
)
async def test_a_training_whose_trainjob_has_fresh_reports_costs_no_log_requests(
    store: Store, reported: str | None, logs: int
) -> None:
    """200 seconds of a training, with a report each 30 seconds: the log is read before the first one only."""
    asked: list[str] = []

    def count(_number: int, call: str) -> ApiError | None:
        asked.extend([call] if call == "pod_log" else [])
        return Transient("no kubelet responds") if call == "pod_log" else None

    now = [NOW]
    controller = Controller(FaultyCluster(store, count), everywhere, clock=lambda: now[0])
    while not (jobs := (await store.list(TRAINJOB, "team")).items):
        await controller.reconcile(KEY)
        await finish_children(store, skip=TRAINJOB)
    (job,) = jobs
    name, labels = job["metadata"]["name"], job["metadata"]["labels"]
    labels = {**labels, "batch.kubernetes.io/job-completion-index": "0"}
    pod = {"name": "p", "namespace": "team", "labels": labels, "ownerReferences": controlled_by(job)}
    await store.create({"apiVersion": "v1", "kind": "Pod", "metadata": pod, "spec": {"containers": [{"name": "node"}]}})
    await store.patch_status(POD, "team", "p", {"status": {"phase": "Running"}})
    for _ in range(3):
        await controller.reconcile(KEY)
    for second in range(0, 201, 10):
        now[0] = NOW + timedelta(seconds=second)
        await controller.reconcile(KEY)
        if second % 30 == 0 and reported:
            await _report(
                store, name, reported, Progress(second // 3, step=second, total_steps=300, time=int(now[0].timestamp()))
            )
    assert len(asked) == logs
    run = Run.parse(await store.get(FINETUNERUN, *KEY))
    assert run.status.get("progress", {}).get("percent") == (60 if reported else None)


async def _report(store: Store, name: str, reported: str, progress: Progress) -> None:
    status = to_trainer(progress)["trainerStatus"]
    if reported == "status":
        await store.patch_status(TRAINJOB, "team", name, {"status": {"trainerStatus": status}})
        return
    text = json.dumps({**to_rhoai(progress), "lastUpdatedTime": status["lastUpdatedTime"]})
    await store.patch(TRAINJOB, "team", name, {"metadata": {"annotations": {RHOAI_STATUS: text}}})


def _children_created(cluster: FaultyCluster) -> dict[tuple[str, str], int]:
    return {
        key: count
        for key, count in cluster.created.items()
        if key[0] in ("Job", "TrainJob", "ConfigMap", "PersistentVolumeClaim")
    }


FAULTS: dict[str, Callable[[], ApiError]] = {
    "500": lambda: Transient("internal error", 500), "timeout": lambda: Timeout("no answer"), "409": lambda: Conflict("changed", 409),
}  # fmt: skip


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_at_any_call_does_not_change_the_end(tmp_path: Path, fault: str, after: bool) -> None:
    number, total = 0, 1
    while number < total:
        store = Store(tmp_path / f"{number}.db")
        run = {
            "apiVersion": "finetunerun.io/v1alpha1",
            "kind": "FineTuneRun",
            "metadata": {"name": "demo", "namespace": "team"},
            "spec": SPEC,
        }
        await store.create(run)
        at = number
        cluster = FaultyCluster(store, lambda count, _call, at=at: FAULTS[fault]() if count == at else None, after=after)
        ended = await drive(store, cluster)
        assert ended.status["phase"] == "Succeeded", f"call {number}"
        assert set(_children_created(cluster).values()) == {1}, f"call {number}: {_children_created(cluster)}"
        assert all(record.attempt <= 1 for record in ended.stages.values()), f"call {number}"
        store.close()
        number, total = number + 1, max(total, cluster.calls)
    assert total > 40


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("seed", range(10))
async def test_repeated_faults_only_cost_time(store: Store, seed: int, after: bool) -> None:
    chance = random.Random(seed)
    cluster = FaultyCluster(store, lambda _count, _call: Transient("again", 503) if chance.random() < 0.15 else None, after=after)
    run = await drive(store, cluster, passes=400)
    assert run.status["phase"] == "Succeeded"
    assert set(_children_created(cluster).values()) == {1}


async def test_an_invalid_object_ends_the_run_with_the_message_of_the_api_server(store: Store) -> None:
    cluster = _Rejecting(store, "Job", Invalid("a policy denies it", 422))
    run = await drive(store, cluster)
    assert run.status["failure"]["reason"] == "ChildRejected"
    assert "a policy denies it" in run.status["failure"]["message"]


async def test_a_missing_right_is_reported_and_the_run_resumes_when_it_is_granted(store: Store) -> None:
    cluster = _Rejecting(store, "Job", Forbidden("jobs.batch is forbidden: may not create", 403))
    controller = Controller(cluster, everywhere, clock=lambda: NOW)
    for _ in range(4):
        await controller.reconcile(KEY)
    run = Run.parse(await store.get(FINETUNERUN, *KEY))
    stalled = next(entry for entry in run.status["conditions"] if entry["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "ChildRejected")
    assert "may not create" in stalled["message"]
    cluster.kind = "nothing"
    assert (await drive(store, cluster)).status["phase"] == "Succeeded"


async def test_one_pass_reports_a_rejection_and_none_repeats_the_call_before_the_pause(store: Store) -> None:
    """One plan a pass: the pass after the rejection reports it, and the effect is carried out again when its pause is over."""
    now = [NOW]

    async def settings(_namespace: str) -> Settings:
        return replace(REAL, retry_seconds=10.0)

    cluster = FaultyCluster(_Rejecting(store, "Job", Forbidden('jobs.batch "j" is forbidden: exceeded quota: q', 403)))  # type: ignore[arg-type]
    controller = Controller(cluster, settings, clock=lambda: now[0])
    while not cluster.rejected:
        await controller.reconcile(KEY)
    assert await controller.reconcile(KEY) == 10.0
    calls = cluster.rejected.copy()
    assert set(calls.values()) == {1}
    document = await store.get(FINETUNERUN, *KEY)
    stalled = next(entry for entry in document["status"]["conditions"] if entry["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "QuotaExceeded")
    for remaining in (7.0, 4.0, 1.0):
        now[0] += timedelta(seconds=3)
        assert await controller.reconcile(KEY) == remaining
    assert cluster.rejected == calls
    now[0] += timedelta(seconds=1)
    assert await controller.reconcile(KEY) == 10.0, "the same rejection needs no further pass"
    assert set(cluster.rejected.values()) == {2}
    assert await store.get(FINETUNERUN, *KEY) == document, "nothing is written"


@dataclass
class _Rejecting:
    """A cluster that rejects the creation of objects of one kind."""

    inner: Store
    kind: str
    error: ApiError

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def create(self, manifest: Object, *, dry_run: bool = False) -> Object:
        if manifest["kind"] == self.kind:
            raise self.error
        return await self.inner.create(manifest, dry_run=dry_run)


WEBHOOK = 'admission webhook "w" denied the request: no'


DRY_RUNS = {
    "a right": (Forbidden("no right", 403), True),
    "a webhook": (Invalid(WEBHOOK, 403), True),
    "a webhook, reported as invalid": (Invalid(WEBHOOK, 422), True),
    "the name is taken": (AlreadyExists("exists", 409), True),
    "a webhook that does not respond": (Transient("failed calling webhook", 500), True),
    "a server that is too busy": (Transient("try again", 429), False),
    "no response": (Timeout("no response"), False),
}


@pytest.mark.parametrize(("error", "starts"), DRY_RUNS.values(), ids=DRY_RUNS)
async def test_a_dry_run_without_an_invalid_field_blocks_no_run(store: Store, error: ApiError, starts: bool) -> None:
    """A transient error is retried before the run starts, so that every field is validated."""
    await store.patch(FINETUNERUN, *KEY, {"spec": {"training": {"placement": {"labels": {"a": "b"}}}}})
    controller = Controller(_Rejecting(store, "Job", error), everywhere, clock=lambda: NOW)
    if starts:
        await controller.reconcile(KEY)
    else:
        with pytest.raises(Transient):
            await controller.reconcile(KEY)
    assert Run.parse(await store.get(FINETUNERUN, *KEY)).started is starts


async def test_a_dry_run_costs_one_call(store: Store) -> None:
    await store.patch(FINETUNERUN, *KEY, {"spec": {"training": {"placement": {"labels": {"a": "b"}}}}})
    cluster = FaultyCluster(store)
    assert (await drive(store, cluster)).status["phase"] == "Succeeded"
    assert cluster.created["Job", "demo-train-1-1"] == 1


async def test_a_missing_run_is_not_an_error(store: Store) -> None:
    await store.delete(FINETUNERUN, *KEY)
    assert await Controller(store, everywhere, clock=lambda: NOW).reconcile(KEY) is None


async def test_children_are_removed_after_their_time_to_live_and_the_run_is_kept(store: Store) -> None:
    run = await drive(store, store)
    controller = Controller(store, everywhere, clock=lambda: NOW + timedelta(hours=25))
    for _ in range(3):
        await controller.reconcile(KEY)
    for kind in (JOB, TRAINJOB):
        assert not (await store.list(kind, "team")).items
    left = Run.parse(await store.get(FINETUNERUN, *KEY))
    assert left.status["cleanedAt"]
    assert left.status["registry"] == run.status["registry"]


async def test_deleting_a_run_deletes_its_children(store: Store) -> None:
    controller = Controller(store, everywhere, clock=lambda: NOW)
    for _ in range(2):
        await controller.reconcile(KEY)
    assert (await store.list(JOB, "team")).items
    await store.delete(FINETUNERUN, *KEY)
    assert not (await store.list(JOB, "team")).items
    with pytest.raises(NotFound):
        await store.get(FINETUNERUN, *KEY)
