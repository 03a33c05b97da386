"""The control loop: keys of runs in, and for each one pass of observe, plan and apply, until the loop is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Literal

from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN, JOB, POD, TRAINJOB, Kind
from finetune_operator.core import naming
from finetune_operator.core.decision import Create, Decision, Event
from finetune_operator.core.ended_run import idle_seconds
from finetune_operator.core.internal_error import hold_internal_error
from finetune_operator.core.plan import hold_forbidden, plan
from finetune_operator.core.reads import active_stages
from finetune_operator.core.run import Run, StageStatus
from finetune_operator.core.settings import Settings
from finetune_operator.core.status_rejection import fail_rejected
from finetune_operator.core.times import stamp

from .apply import Applied, apply
from .child_cache import ChildCache
from .cluster import Cluster, EventType, Object, RunKey
from .contents import ConfigMapContents
from .errors import ApiError, Conflict, Forbidden, Invalid, NotFound, Transient
from .expectations import Expectations
from .labels import run_of
from .lineage import Lineage
from .observe import Caches, observe
from .pager import list_runs
from .queue import WorkQueue
from .recorder import WRITERS, EventRecorder, missing
from .rejections import Rejections
from .run_cache import RunCache
from .status_rejections import StatusRejections, violates_definition
from .supervisor import cancel, supervise
from .warning_events import WarningEvents
from .watch import list_watch

SettingsSource = Callable[[str], Awaitable[Settings]]
"""Returns the current settings for the runs of a namespace."""

ReconcileObserver = Callable[[Run, Decision, float], None]
"""Called after each pass that was carried out, with the run before the pass, the decision and the duration in seconds."""

ErrorSource = Literal["watch", "reconcile", "task"]
"""What raised an unexpected exception: the handling of an event, a pass, or another part of the loop."""

log = logging.getLogger(__name__)

WORKLOAD_KINDS = (JOB, TRAINJOB, POD)
"""The kinds that are watched for changes of a run's children, by their labels."""
WORKERS = 32
_PAUSE_SECONDS = 10.0
RESYNC_SECONDS = 300.0
"""Interval between passes over every run that needs one, whether an event was received or not: a lost event costs at most this time."""


class Controller:
    """Advances the runs of a cluster, or of some namespaces, until they end."""

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
        self._runs = RunCache()
        self._expectations = Expectations()
        self._lineage = Lineage()
        self._children = ChildCache(self._expectations, self._lineage)
        self._rejections = Rejections()
        self._status_rejections = StatusRejections()
        self._warning_events = WarningEvents()
        self._contents = ConfigMapContents()
        self._recorder = EventRecorder(cluster)
        self.queue: WorkQueue[RunKey] = WorkQueue()

    # -- one pass ------------------------------------------------------------------------------------------------------

    async def reconcile(self, key: RunKey) -> float | None:
        """Make one pass over a run. Return the seconds after which it needs another; ``None`` if only a change can require one.

        Raises:
            ApiError: a call failed, and the pass must be repeated.
            Exception: the operator has a defect. The run shows condition ``Stalled``, and the pass must be repeated.
        """
        document = self._runs.pop(key) or await self._read(key)
        if document is None:
            self._drop(key)
            return None
        began = asyncio.get_running_loop().time()
        now, run = self._clock(), Run.parse(document)
        self.queue.clear_dirty(key)
        try:
            settings = await self._settings(key[0])
            decision = plan(run, await observe(self._cluster, run, settings, now, self._caches(key, run)), now)
        except Forbidden as error:
            await self._hold(document, hold_forbidden(run, error.message, now), now)
            raise
        except ApiError:
            raise
        except Exception as error:
            with contextlib.suppress(ApiError):  # the exception is what must be logged
                await self._hold(document, hold_internal_error(run, type(error).__name__, now), now)
            raise
        carried_out = self._rejections.postpone(key, decision, now)
        try:
            applied = await self._carry_out(key, document, carried_out, now)
        except Invalid as error:
            await self._fail_rejected(key, document, error, now)
            return 0.0
        self._status_rejections.forget(key)
        if self._observer is not None:
            self._observer(run, decision, asyncio.get_running_loop().time() - began)
        retry_at = now + timedelta(seconds=settings.retry_seconds)
        unreported = self._rejections.observe_pass(key, decision, carried_out, applied.rejected, retry_at)
        if self._observe_pass(run, decision, document, applied) or unreported or _creates_unwatched(carried_out, applied):
            return 0.0
        first_retry = self._rejections.retry_at(key)
        delays = (decision.requeue_after, None if first_retry is None else max(0.0, (first_retry - now).total_seconds()))
        return min((delay for delay in delays if delay is not None), default=None)

    async def _read(self, key: RunKey) -> Object | None:
        try:
            return await self._cluster.get(FINETUNERUN, *key)
        except NotFound:
            return None

    def _caches(self, key: RunKey, run: Run) -> Caches:
        return Caches(
            partial(self._children.attempt, key, run.uid),
            self._rejections.of_run(key),
            self._warning_events,
            self._contents,
            self._children.last_polled(key),
            self._lineage,
        )

    async def _carry_out(self, key: RunKey, document: Object, decision: Decision, now: datetime) -> Applied:
        children = [one.manifest for one in decision.effects if isinstance(one, Create) and one.ref.kind in WORKLOAD_KINDS]
        for child in children:
            self._expectations.expect_creation(key, child)
        applied = await self._apply(document, decision, now)
        created = {(item["kind"], item["metadata"]["name"]) for item in applied.created}
        for child in children:
            if (child["kind"], child["metadata"]["name"]) not in created:
                self._expectations.forget_creation(key, child)
        for item in applied.created:
            if item["kind"] == CONFIGMAP.name:
                self._contents.remember(item)
        return applied

    async def _hold(self, document: Object, decision: Decision, now: datetime) -> None:
        """Write the status of a run that cannot be advanced. Its pass fails, and the event about this write must not repeat it."""
        applied = await self._apply(document, decision, now)
        self._runs.add_version((document["metadata"]["namespace"], document["metadata"]["name"]), applied.version)

    async def _fail_rejected(self, key: RunKey, document: Object, error: Invalid, now: datetime) -> None:
        """Fail a run whose status violates the CRD for minutes. Any other rejection, such as that of a policy, is raised.

        A run that cannot fail, for example because it has not started, shows condition ``Stalled``.
        """
        if not violates_definition(error):
            self._status_rejections.forget(key)
            raise error
        persists = self._status_rejections.persists(key, error, now)
        run = Run.parse(document)
        decision = fail_rejected(run, error.message)
        if decision is not None and not persists:
            raise error
        log.error("%s/%s: the API server rejected the status: %s", *key, error)
        await self._hold(document, decision or hold_internal_error(run, type(error).__name__, now), now)
        if decision is None:
            raise error
        self._forget(key)

    async def _apply(self, document: Object, decision: Decision, now: datetime) -> Applied:
        def record(run: Run, event: Event) -> None:
            if event.posted:
                self._recorder.record(run, event, stamp(now))

        return await apply(self._cluster, document, decision, record)

    def _observe_pass(self, run: Run, decision: Decision, document: Object, applied: Applied) -> bool:
        """Update the caches after a pass. Return whether somebody else changed the run in the meantime."""
        key = (run.namespace, run.name)
        if not self._runs.is_terminal(key):
            self._children.observe_pass(key, _active(run, decision))
        return self._runs.observe_pass(key, document["metadata"]["resourceVersion"], applied.document)

    def _forget(self, key: RunKey) -> None:
        """Empty the caches of a run, so that its next pass reads everything."""
        self._runs.forget(key)
        self._children.forget(key)
        self._expectations.forget(key)

    def _drop(self, key: RunKey) -> None:
        """Forget everything about a run that does not exist or has ended."""
        self._forget(key)
        self._rejections.forget(key)
        self._status_rejections.forget(key)

    async def work(self) -> None:
        """Make passes over the runs in the queue, without end."""
        while True:
            key = await self.queue.get()
            failed = False
            try:
                requeue_after = await self.reconcile(key)
                if requeue_after is not None:
                    self.queue.add_after(key, requeue_after)
            except Conflict:
                self.queue.add(key)
            except ApiError as error:
                failed = True
                log.warning("%s/%s: the pass failed and is repeated: %s", *key, error)
            except Exception:
                failed = True
                log.exception("%s/%s: the pass raised an exception and is repeated", *key)
                self._count_error("reconcile")
            finally:
                self.queue.done(key, failed=failed)

    # -- what requires a pass ------------------------------------------------------------------------------------------

    async def list_watch(self, kind: Kind, namespace: str | None = None, labels: Mapping[str, str] | None = None) -> None:
        """Add the run of every object that changes to the queue, without end."""
        async for event in list_watch(self._cluster, kind, namespace, labels):
            if event.type != "BOOKMARK":
                self.on_event(kind, event.object, event.type)

    def on_event(self, kind: Kind, item: Object, event_type: EventType | None) -> None:
        """Handle a run or a child that a watch reports: add the run to the queue if the change may affect a decision.

        It never raises, since a watch would only drop the event. After an exception, the run is added to the queue as well.

        Args:
            kind: the kind of the object.
            item: the object.
            event_type: the type of the event; ``None`` if the object was only listed.
        """
        try:
            self._on_event(kind, item, event_type)
        except Exception:
            log.exception("the handling of an event about a %s raised an exception", kind)
            self._count_error("watch")
            self._enqueue_later(kind, item)

    def _on_event(self, kind: Kind, item: Object, event_type: EventType | None) -> None:
        key = run_of(kind, item)
        if key is None:
            return
        if kind != FINETUNERUN:
            if not self._runs.is_terminal(key):
                requeue_after = self._children.on_event(key, kind, item, event_type, busy=self.queue.busy(key))
                if requeue_after is not None:
                    self.queue.add_after(key, requeue_after)
            return
        if event_type == "DELETED":
            self._drop(key)
            return
        idle = idle_seconds(Run.parse(item), self._clock())
        if idle > 0:
            self._drop(key)
            self._runs.mark_terminal(key)
            if idle < math.inf:
                self.queue.add_after(key, idle)
        elif event_type is None:  # after an interruption of the watch, it is not known what was missed
            self._forget(key)
            self.queue.add(key)
        elif self._runs.on_event(key, item["metadata"]["resourceVersion"], busy=self.queue.busy(key)):
            self.queue.add(key)

    def _enqueue_later(self, kind: Kind, item: Object) -> None:
        """Add the run of an event that could not be handled, after a pause that grows with each such event."""
        try:
            key = run_of(kind, item)
        except (KeyError, TypeError, AttributeError):  # the object does not name a run
            return
        if key is not None:
            self._forget(key)
            self.queue.add_rate_limited(key)

    def _count_error(self, source: ErrorSource) -> None:
        if self._on_error is not None:
            self._on_error(source)

    def enqueue(self, kind: Kind, item: Object) -> None:
        """Add the run that an object is, or belongs to by its label, and empty its caches."""
        key = run_of(kind, item)
        if key is not None:
            self._forget(key)
            self.queue.add(key)

    async def resync(self) -> None:
        """Add every run that needs a pass to the queue at regular intervals, without end."""
        while True:
            await asyncio.sleep(self._resync_seconds)
            try:
                async for document in list_runs(self._cluster, self._namespaces):
                    self._resync(document)
            except ApiError as error:
                log.warning("resync: the list of runs failed: %s", error)

    def _resync(self, document: Object) -> None:
        """Add a run to the queue if it needs a pass. An exception about one run does not affect the others."""
        try:
            if idle_seconds(Run.parse(document), self._clock()) == 0:
                self.enqueue(FINETUNERUN, document)
        except Exception:
            log.exception("resync: a %s raised an exception", FINETUNERUN)
            self._count_error("reconcile")
            self._enqueue_later(FINETUNERUN, document)

    # -- the whole -----------------------------------------------------------------------------------------------------

    async def write_missing_events(self) -> None:
        """Write the Events that the previous process of the operator did not write."""
        while True:
            try:
                events = await missing(
                    self._cluster, list_runs(self._cluster, self._namespaces), self._namespaces, self._clock(),
                    on_error=partial(self._count_error, "task"),
                )  # fmt: skip
            except Transient as error:
                log.warning("missing Events: a call failed and is repeated: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            except ApiError as error:
                log.warning("missing Events: they are not written: %s", error)
                return
            for run, event, time in events:
                self._recorder.record(run, event, time)
            return

    @contextlib.asynccontextmanager
    async def running(self, workers: int = WORKERS, *, watching: bool = True) -> AsyncIterator[None]:
        """Run the loop inside the context. Without ``watching``, the caller reports changes to :meth:`on_event`."""
        labels = {naming.MANAGED_BY_LABEL: naming.MANAGED_BY}
        namespaces = (self._namespaces or (None,)) if watching else ()
        watches = [
            partial(self.list_watch, kind, namespace, labels if kind in WORKLOAD_KINDS else None)
            for namespace in namespaces
            for kind in (FINETUNERUN, *WORKLOAD_KINDS)
        ]
        parts: tuple[Callable[[], Awaitable[None]], ...] = (
            *watches, self.resync, self.write_missing_events, *(self.work for _ in range(workers)),
        )  # fmt: skip
        on_error = partial(self._count_error, "task")
        tasks = [asyncio.create_task(supervise(part, on_error)) for part in parts]
        writers = [asyncio.create_task(supervise(self._recorder.write, on_error)) for _ in range(WRITERS)]
        try:
            yield
        finally:
            await cancel(tasks)
            await self._recorder.flush()
            await cancel(writers)


def _creates_unwatched(decision: Decision, applied: Applied) -> bool:
    """Return whether a decision that was carried out created objects whose creation no watch reports."""
    return any(
        isinstance(effect, Create) and effect.ref.kind not in WORKLOAD_KINDS and effect.ref not in applied.rejected
        for effect in decision.effects
    )


def _active(run: Run, decision: Decision) -> tuple[StageStatus, ...]:
    """Return the stages that have a child and have not ended after the decision."""
    return active_stages(replace(run, status=decision.status))
