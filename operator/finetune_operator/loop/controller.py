"""The loop itself: keys in, one pass of observe, plan and apply for each, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN, JOB, POD, TRAINJOB, Kind
from finetune_operator.core import naming
from finetune_operator.core.decision import Create, Decision, Event
from finetune_operator.core.plan import hold_without_right, plan
from finetune_operator.core.reads import active_stages
from finetune_operator.core.run import Run, StageStatus
from finetune_operator.core.settings import Settings
from finetune_operator.core.terminal import idle_seconds
from finetune_operator.core.times import stamp

from .apply import Applied, apply
from .cluster import Cluster, Object
from .contents import ConfigMapContents
from .errors import ApiError, Conflict, Forbidden, NotFound, Transient
from .news import Key, News, Told
from .observe import Known, observe
from .queue import WorkQueue
from .recorder import WRITERS, EventRecorder, missing
from .warning_events import WarningEvents
from .watch import changes

SettingsSource = Callable[[str], Awaitable[Settings]]
"""What the place is like for the runs of a namespace, now."""

ReconcileObserver = Callable[[Run, Decision, float], None]
"""Is told of each pass that was carried out: the run as it was, what was decided, and the seconds that it took."""

ErrorSource = Literal["watch", "reconcile", "task"]
"""What raised an unexpected exception: the handling of an event, a pass, or another part of the loop."""

log = logging.getLogger(__name__)

CHILD_KINDS = (JOB, TRAINJOB, POD)
"""The kinds whose changes move a run, found by their labels."""
WORKERS = 32
RUNS_PAGE = 100
"""Runs in a page of a list of them all: with their statuses they are large, and a page is read without a pause."""
_PAUSE_SECONDS = 10.0
RESYNC_SECONDS = 300.0
"""Every run that is not at rest is looked at at least that often: lost events cost that much time, and nothing else."""
_RESTART_SECONDS = 1.0
"""Pause before a part of the loop that ended with an exception is started again; it doubles up to the longest one."""
_LONGEST_RESTART_SECONDS = 60.0
"""As long as a part of the loop has to run for its next failure to count as the first."""


class Controller:
    """Drives the runs of a cluster (or of some namespaces) to their ends."""

    def __init__(
        self,
        cluster: Cluster,
        settings: SettingsSource,
        namespaces: Sequence[str] = (),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        observer: ReconcileObserver | None = None,
        *,
        on_error: Callable[[ErrorSource], None] | None = None,
        resync_seconds: float = RESYNC_SECONDS,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._namespaces = tuple(namespaces)
        self._clock = clock
        self._observer = observer
        self._on_error = on_error
        self._resync_seconds = resync_seconds
        self._news = News()
        self._warning_events = WarningEvents()
        self._contents = ConfigMapContents()
        self._recorder = EventRecorder(cluster)
        self.queue: WorkQueue[Key] = WorkQueue()

    async def reconcile(self, key: Key) -> float | None:
        """One pass over one run; seconds after which time alone may ask for another.

        Raises:
            ApiError: a call failed; the pass is to be repeated.
        """
        document = self._news.take(key) or await self._read(key)
        if document is None:
            self._news.forget(key)
            return None
        began = asyncio.get_running_loop().time()
        now, run = self._clock(), Run.parse(document)
        version = document["metadata"]["resourceVersion"]
        self.queue.clear_dirty(key)
        try:
            settings = await self._settings(key[0])
            known = Known(partial(self._news.attempt, key), self._warning_events, self._contents, self._news.looks(key))
            observed = await observe(self._cluster, run, settings, now, known)
        except Forbidden as error:
            await self._apply(document, hold_without_right(run, error.message, now), now)
            raise
        decision = plan(run, observed, now)
        applied = await self._carry_out(key, document, decision, now)
        if self._observer is not None:
            self._observer(run, decision, asyncio.get_running_loop().time() - began)
        if applied.rejected:
            document = await self._cluster.get(FINETUNERUN, *key)
            decision = plan(Run.parse(document), replace(observed, rejected=applied.rejected), now)
            told = await self._apply(document, replace(decision, effects=()), now)
            missed = self._news.passed(key, _active(run, decision), applied.version, told.document)
            return 0.0 if missed else settings.retry_seconds
        return self._next(run, decision, version, applied)

    async def _read(self, key: Key) -> Object | None:
        try:
            return await self._cluster.get(FINETUNERUN, *key)
        except NotFound:
            return None

    async def _carry_out(self, key: Key, document: Object, decision: Decision, now: datetime) -> Applied:
        children = [one.manifest for one in decision.effects if isinstance(one, Create) and one.ref.kind in CHILD_KINDS]
        for child in children:
            self._news.making(key, child)
        applied = await self._apply(document, decision, now)
        made = {(item["kind"], item["metadata"]["name"]) for item in applied.made}
        for child in children:
            if (child["kind"], child["metadata"]["name"]) not in made:
                self._news.not_made(key, child)
        for item in applied.made:
            if item["kind"] == CONFIGMAP.name:
                self._contents.remember(item)
        return applied

    async def _apply(self, document: Object, decision: Decision, now: datetime) -> Applied:
        def tell(run: Run, event: Event) -> None:
            if event.posted:
                self._recorder.record(run, event, stamp(now))

        return await apply(self._cluster, document, decision, tell)

    def _next(self, run: Run, decision: Decision, version: str, applied: Applied) -> float | None:
        """When to look again: at once if the pass missed something, or somebody has just made what no watch tells of."""
        key = (run.namespace, run.name)
        missed = self._news.passed(key, _active(run, decision), version, applied.document)
        unwatched = any(isinstance(effect, Create) and effect.ref.kind not in CHILD_KINDS for effect in decision.effects)
        if missed or unwatched:
            return 0.0
        return decision.requeue_after

    async def work(self) -> None:
        """Work off the queue for ever."""
        while True:
            key = await self.queue.get()
            failed = False
            try:
                again = await self.reconcile(key)
                if again is not None:
                    self.queue.add_after(key, again)
            except Conflict:
                self.queue.add(key)
            except ApiError as error:
                failed = True
                log.warning("%s/%s: %s", *key, error)
            except Exception:
                failed = True
                log.exception("%s/%s: the pass ended with an exception", *key)
                self._count_error("reconcile")
            finally:
                self.queue.done(key, failed=failed)

    async def list_watch(self, kind: Kind, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> None:
        """Put the run of every object that changes on the queue, for ever."""
        async for change in changes(self._cluster, kind, namespace, labels):
            if change.type != "BOOKMARK":
                self.hear(kind, change.object, change.type)

    def hear(self, kind: Kind, item: Object, told: Told) -> None:
        """Have the run looked at that an object is, or belongs to by its label, if what a watch tells of it is new.

        It never raises: whoever watches could do nothing about it, and would drop the event. The run is looked at all the same.
        """
        try:
            self._hear(kind, item, told)
        except Exception:
            log.exception("the event of a %s could not be handled", kind)
            self._count_error("watch")
            self._enqueue_later(kind, item)

    def _hear(self, kind: Kind, item: Object, told: Told) -> None:
        key = _key(kind, item)
        if key is None:
            return
        if kind != FINETUNERUN:
            seconds = self._news.of_child(key, kind, item, told, busy=self.queue.busy(key))
            if seconds is not None:
                self.queue.add_after(key, seconds)
            return
        if told == "DELETED":
            self._news.forget(key)
            return
        seconds = idle_seconds(Run.parse(item), self._clock())
        if seconds > 0:
            self._news.settle(key)
            if seconds < math.inf:
                self.queue.add_after(key, seconds)
        elif told is None:  # after a break of the watch nobody knows what was missed
            self._news.forget(key)
            self.queue.add(key)
        elif self._news.of_run(key, item["metadata"]["resourceVersion"], busy=self.queue.busy(key)):
            self.queue.add(key)

    def _enqueue_later(self, kind: Kind, item: Object) -> None:
        """Have the run of an event that could not be handled read anew, later each time that this happens."""
        try:
            key = _key(kind, item)
        except (KeyError, TypeError, AttributeError):  # it names no run at all
            return
        if key is not None:
            self._news.forget(key)
            self.queue.add_rate_limited(key)

    def _count_error(self, source: ErrorSource) -> None:
        if self._on_error is not None:
            self._on_error(source)

    def enqueue(self, kind: Kind, item: Object) -> None:
        """Have the run looked at that an object is, or belongs to by its label, whatever is known of it."""
        key = _key(kind, item)
        if key is not None:
            self._news.forget(key)
            self.queue.add(key)

    async def resync(self) -> None:
        """Look at every run that is not at rest now and then, for ever."""
        while True:
            await asyncio.sleep(self._resync_seconds)
            try:
                async for document in runs(self._cluster, self._namespaces):
                    self._resync(document)
            except ApiError as error:
                log.warning("resync: %s", error)

    def _resync(self, document: Object) -> None:
        """Enqueue a run that is not at rest. One that cannot be read keeps no other from it."""
        try:
            if idle_seconds(Run.parse(document), self._clock()) == 0:
                self.enqueue(FINETUNERUN, document)
        except Exception:
            log.exception("resync: a %s could not be handled", FINETUNERUN)
            self._count_error("reconcile")
            self._enqueue_later(FINETUNERUN, document)

    async def write_missing_events(self) -> None:
        """Write the Events that the process before this one did not get to."""
        while True:
            try:
                found = await missing(
                    self._cluster, runs(self._cluster, self._namespaces), self._namespaces, self._clock(),
                    on_error=partial(self._count_error, "task"),
                )  # fmt: skip
            except Transient as error:
                log.warning("missing Events: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            except ApiError as error:
                log.warning("missing Events: %s", error)
                return
            for run, event, time in found:
                self._recorder.record(run, event, time)
            return

    @contextlib.asynccontextmanager
    async def running(self, workers: int = WORKERS, *, watching: bool = True) -> AsyncIterator[None]:
        """The loop as a context: inside it, runs move. Without ``watching`` somebody else puts them on the queue."""
        ours = {naming.MANAGED_BY_LABEL: naming.MANAGED_BY}
        where = (self._namespaces or (None,)) if watching else ()
        watches = [
            partial(self.list_watch, kind, namespace, ours if kind in CHILD_KINDS else None)
            for namespace in where
            for kind in (FINETUNERUN, *CHILD_KINDS)
        ]
        jobs: tuple[Callable[[], Awaitable[None]], ...] = (
            *watches, self.resync, self.write_missing_events, *(self.work for _ in range(workers)),
        )  # fmt: skip
        tasks = [asyncio.create_task(self._forever(job)) for job in jobs]
        writers = [asyncio.create_task(self._forever(self._recorder.write)) for _ in range(WRITERS)]
        try:
            yield
        finally:
            await _end(tasks)
            await self._recorder.flush()
            await _end(writers)

    async def _forever(self, job: Callable[[], Awaitable[None]]) -> None:
        """Run a part of the loop, and start it again after an unexpected exception, with pauses that grow while it soon fails again."""
        clock = asyncio.get_running_loop().time
        pause = _RESTART_SECONDS
        while True:
            started = clock()
            try:
                return await job()
            except Exception:
                log.exception("a part of the loop ended with an exception and is begun again")
                self._count_error("task")
            if clock() - started > _LONGEST_RESTART_SECONDS:
                pause = _RESTART_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_RESTART_SECONDS)


def _key(kind: Kind, item: Object) -> Key | None:
    """The run that an object is, or belongs to by its label."""
    metadata = item["metadata"]
    name = metadata["name"] if kind == FINETUNERUN else (metadata.get("labels") or {}).get(naming.RUN_LABEL)
    return (metadata.get("namespace", "default"), name) if name else None


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _active(run: Run, decision: Decision) -> tuple[StageStatus, ...]:
    """The stages that have a child and have not ended, once the decision is carried out."""
    return active_stages(replace(run, status=decision.status))


async def runs(cluster: Cluster, namespaces: Sequence[str] = ()) -> AsyncIterator[Object]:
    """All FineTuneRuns (of some namespaces), page by page."""
    for namespace in namespaces or (None,):
        continue_ = None
        while True:
            page = await cluster.list(FINETUNERUN, namespace, limit=RUNS_PAGE, continue_=continue_)
            for document in page.items:
                yield document
            continue_ = page.continue_
            if not continue_:
                break
