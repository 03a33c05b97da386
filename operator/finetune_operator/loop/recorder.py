"""Events about runs, written behind the passes: no stage's next step waits for them.

client-go's ``EventRecorder`` does the same: Events are queued, and a writer of its own creates them, again where a passing fault
kept it from that. What a process did not write before it died, :func:`missing` finds for the next one.
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
from finetune_operator.core.events import lasting
from finetune_operator.core.naming import MANAGED_BY
from finetune_operator.core.run import Run
from finetune_operator.core.times import moment

from .cluster import Cluster, Object
from .errors import ApiError, Transient
from .pager import list_all

log = logging.getLogger(__name__)

WRITERS = 4
TRIES, PAUSE_SECONDS = 12, 10.0
"""For one Event, as client-go has them."""
LIFETIME = timedelta(hours=1)
"""How long the API server keeps an Event (the default of its ``--event-ttl``): an older one would have expired by now."""
_MOST = 10_000
"""Events that wait at most, for a cluster that takes none; what comes then is left out."""
_LAST_SECONDS = 2.0


class EventRecorder:
    """Takes Events without waiting, and writes them as the cluster takes them."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._told: asyncio.Queue[tuple[Object, int]] = asyncio.Queue(_MOST)

    def record(self, run: Run, event: Event, time: str) -> None:
        """Have an Event written that tells of ``run`` as of ``time``."""
        self._put(_manifest(run, event, time), TRIES)

    def _put(self, manifest: Object, tries: int) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            self._told.put_nowait((manifest, tries))

    async def write(self) -> None:
        """Write what is told, for ever. One that cannot be written is left out, and so is one that is there already."""
        while True:
            manifest, tries = await self._told.get()
            try:
                await self._cluster.create(manifest)
            except Transient:
                if tries > 1:
                    asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._put, manifest, tries - 1)
            except ApiError:
                continue
            finally:
                self._told.task_done()

    async def flush(self) -> None:
        """Wait until all is written that was told, for a moment at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                await self._told.join()


async def missing(
    cluster: Cluster,
    documents: AsyncIterator[Object],
    namespaces: Sequence[str],
    now: datetime,
    *,
    on_error: Callable[[], None],
) -> list[tuple[Run, Event, str]]:
    """Return the Events of stages and runs that ended lately and that nobody has written, each with its run and its time.

    ``on_error`` is called for each run that cannot be read, which keeps no other from being told.

    Raises:
        ApiError: a call failed.
    """
    found: list[tuple[Run, Event, str]] = []
    async for document in documents:
        try:
            found += _lately_ended(Run.parse(document), now - LIFETIME)
        except Exception:
            log.exception("the Events of a run could not be read: %s", (document.get("metadata") or {}).get("name"))
            on_error()
    if not found:
        return []
    written = {name for namespace in namespaces or (None,) async for name in _written(cluster, namespace)}
    return [(run, event, time) for run, event, time in found if (run.namespace, _name(run, event, time)) not in written]


def _lately_ended(run: Run, since: datetime) -> list[tuple[Run, Event, str]]:
    return [(run, event, time) for event, time in lasting(run) if moment(time) >= since]


async def _written(cluster: Cluster, namespace: str | None) -> AsyncIterator[tuple[str, str]]:
    """Namespace and name of every Event about a run."""
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
