"""Events about runs, written in the background so that no pass waits for them.

As in client-go's ``EventRecorder``, Events are queued, and separate writers create them and retry after transient errors.
:func:`missing` returns the Events that an earlier process did not write.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta

from finetune_operator.api.finetunerun import API_VERSION, KIND
from finetune_operator.api.kinds import EVENT
from finetune_operator.core.decision import Event
from finetune_operator.core.events import lasting_events
from finetune_operator.core.naming import MANAGED_BY
from finetune_operator.core.run import Run
from finetune_operator.core.times import moment

from .cluster import Cluster, Object
from .errors import ApiError, Transient
from .pager import list_all

log = logging.getLogger(__name__)

WRITERS = 4
TRIES, PAUSE_SECONDS = 12, 10.0
"""Attempts to write an Event, and seconds between them, as in client-go."""
LIFETIME = timedelta(hours=1)
"""How long the API server keeps an Event by default (``--event-ttl``): older ones have expired."""
_QUEUE_LIMIT = 10_000
"""Events that can wait for a cluster that accepts none. Further ones are dropped."""
_FLUSH_SECONDS = 2.0


class EventRecorder:
    """Queue of Events that are written in the background."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._queue: asyncio.Queue[tuple[Object, int]] = asyncio.Queue(_QUEUE_LIMIT)

    def record(self, run: Run, event: Event, time: str) -> None:
        """Queue an Event about ``run`` with the time stamp ``time``. It is dropped if the queue is full."""
        self._put(_manifest(run, event, time), TRIES)

    def _put(self, manifest: Object, tries: int) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait((manifest, tries))

    async def write(self) -> None:
        """Write the queued Events, without end. An Event that exists already or cannot be written is dropped."""
        while True:
            manifest, tries = await self._queue.get()
            try:
                await self._cluster.create(manifest)
            except Transient:
                if tries > 1:
                    asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._put, manifest, tries - 1)
            except ApiError:
                continue
            finally:
                self._queue.task_done()

    async def flush(self) -> None:
        """Wait until all queued Events are written, for two seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self._queue.join()


async def missing(
    cluster: Cluster,
    documents: AsyncIterator[Object],
    namespaces: Sequence[str],
    now: datetime,
    *,
    on_error: Callable[[], None],
) -> list[tuple[Run, Event, str]]:
    """Return the Events of recently ended stages and runs that are not written yet, each with its run and its time stamp.

    Args:
        cluster: where Events are listed.
        documents: the runs.
        namespaces: the namespaces of the Events; all namespaces if there are none.
        now: the current time. Events that are older than :data:`LIFETIME` are left out.
        on_error: called for each run that cannot be parsed. The Events of the others are returned.

    Raises:
        ApiError: a call failed.
    """
    events: list[tuple[Run, Event, str]] = []
    async for document in documents:
        try:
            events += _recently_ended(Run.parse(document), now - LIFETIME)
        except Exception:
            log.exception("run %s: its Events could not be derived from its status", (document.get("metadata") or {}).get("name"))
            on_error()
    if not events:
        return []
    written = {name for namespace in namespaces or (None,) async for name in _written(cluster, namespace)}
    return [(run, event, time) for run, event, time in events if (run.namespace, _name(run, event, time)) not in written]


def _recently_ended(run: Run, since: datetime) -> list[tuple[Run, Event, str]]:
    return [(run, event, time) for event, time in lasting_events(run) if moment(time) >= since]


async def _written(cluster: Cluster, namespace: str | None) -> AsyncIterator[tuple[str, str]]:
    """Yield namespace and name of every Event about a run."""
    async for item in list_all(cluster, EVENT, namespace, fields={"involvedObject.kind": KIND}):
        yield item["metadata"]["namespace"], item["metadata"]["name"]


def _name(run: Run, event: Event, time: str) -> str:
    identity = f"{run.uid} {event.key}" if event.key else f"{run.uid} {time} {event}"
    return f"{run.name}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _manifest(run: Run, event: Event, time: str) -> Object:
    about = {"apiVersion": API_VERSION, "kind": KIND, "name": run.name, "namespace": run.namespace, "uid": run.uid}
    return {
        "apiVersion": "v1", "kind": EVENT.name, "metadata": {"name": _name(run, event, time), "namespace": run.namespace},
        "involvedObject": about, "type": event.type, "reason": event.reason, "message": event.message, "count": 1,
        "firstTimestamp": time, "lastTimestamp": time, "source": {"component": MANAGED_BY}, "reportingComponent": MANAGED_BY,
        "reportingInstance": MANAGED_BY,
    }  # fmt: skip
