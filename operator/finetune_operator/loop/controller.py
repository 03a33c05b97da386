"""The loop itself: keys in, one pass of observe, plan and apply for each, until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from finetune_operator.api.kinds import FINETUNERUN, JOB, POD, TRAINJOB, Kind
from finetune_operator.core import naming
from finetune_operator.core.decision import Decision
from finetune_operator.core.plan import plan
from finetune_operator.core.run import Run
from finetune_operator.core.settings import Settings
from finetune_operator.core.times import stamp

from .apply import apply
from .cluster import Cluster, Object
from .errors import ApiError, Conflict, NotFound
from .observe import observe
from .queue import KeyedQueue
from .watch import changes

Key = tuple[str, str]
"""Namespace and name of a run."""

SettingsSource = Callable[[str], Awaitable[Settings]]
"""What the place is like for the runs of a namespace, now."""

Witness = Callable[[Run, Decision, float], None]
"""Is told of each pass that was carried out: the run as it was, what was decided, and the seconds that it took."""

log = logging.getLogger(__name__)

CHILD_KINDS = (JOB, TRAINJOB, POD)
"""The kinds whose changes move a run, found by their labels."""
WORKERS = 16
RESYNC_SECONDS = 300.0
"""Every run that has not ended is looked at at least that often: lost events cost that much time, and nothing else."""


class Controller:
    """Drives the runs of a cluster (or of one namespace) to their ends."""

    def __init__(
        self,
        cluster: Cluster,
        settings: SettingsSource,
        namespace: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        witness: Witness | None = None,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._namespace = namespace
        self._clock = clock
        self._witness = witness
        self.queue: KeyedQueue[Key] = KeyedQueue()

    async def reconcile(self, key: Key) -> float | None:
        """One pass over one run; seconds after which time alone may ask for another.

        Raises:
            ApiError: a call failed; the pass is to be repeated.
        """
        try:
            document = await self._cluster.get(FINETUNERUN, *key)
        except NotFound:
            return None
        began = asyncio.get_running_loop().time()
        now, run, settings = self._clock(), Run.parse(document), await self._settings(key[0])
        observed = await observe(self._cluster, run, settings, now)
        decision = plan(run, observed, now)
        refused = await apply(self._cluster, document, decision, stamp(now))
        if self._witness is not None:
            self._witness(run, decision, asyncio.get_running_loop().time() - began)
        if refused:
            document = await self._cluster.get(FINETUNERUN, *key)
            decision = plan(Run.parse(document), replace(observed, refused=refused), now)
            await apply(self._cluster, document, replace(decision, effects=()), stamp(now))
            return settings.retry_seconds
        return decision.again_in

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
                failed = False
                self.queue.add(key)
            except ApiError as error:
                failed = True
                log.warning("%s/%s: %s", *key, error)
            except Exception:
                failed = True
                log.exception("%s/%s: a fault of the operator", *key)
            finally:
                self.queue.done(key, failed=failed)

    async def feed(self, kind: Kind, labels: Mapping[str, str] | None = None) -> None:
        """Put the run of every object that changes on the queue, for ever."""
        async for change in changes(self._cluster, kind, self._namespace, labels):
            self.enqueue(kind, change.object)

    def enqueue(self, kind: Kind, item: Object) -> None:
        """Have the run looked at that an object is, or belongs to by its label."""
        metadata = item["metadata"]
        name = metadata["name"] if kind == FINETUNERUN else (metadata.get("labels") or {}).get(naming.RUN_LABEL)
        if name:
            self.queue.add((metadata.get("namespace", "default"), name))

    async def resync(self) -> None:
        """Look at every run now and then, for ever."""
        while True:
            await asyncio.sleep(RESYNC_SECONDS)
            try:
                async for document in runs(self._cluster, self._namespace):
                    if not Run.parse(document).ended:
                        self.enqueue(FINETUNERUN, document)
            except ApiError as error:
                log.warning("resync: %s", error)

    @contextlib.asynccontextmanager
    async def running(self, workers: int = WORKERS, *, watching: bool = True) -> AsyncIterator[None]:
        """The loop as a context: inside it, runs move. Without ``watching`` somebody else puts them on the queue."""
        ours = {naming.MANAGED_BY_LABEL: naming.MANAGED_BY}
        watches = [self.feed(FINETUNERUN), *(self.feed(kind, ours) for kind in CHILD_KINDS)] if watching else []
        tasks = [asyncio.create_task(job) for job in (*watches, self.resync(), *(self.work() for _ in range(workers)))]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def runs(cluster: Cluster, namespace: str | None = None) -> AsyncIterator[Object]:
    """All FineTuneRuns, page by page."""
    continue_ = None
    while True:
        page = await cluster.list(FINETUNERUN, namespace, continue_=continue_)
        for document in page.items:
            yield document
        continue_ = page.continue_
        if not continue_:
            return
