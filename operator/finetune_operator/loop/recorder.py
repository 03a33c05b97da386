"""Events about runs, written behind the passes: no stage's next step waits for them.

client-go's ``EventRecorder`` does the same: what is told is put aside, and somebody else writes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

from finetune_operator.api.finetunerun import API_VERSION, KIND
from finetune_operator.api.kinds import EVENT
from finetune_operator.core.decision import Event
from finetune_operator.core.naming import MANAGED_BY
from finetune_operator.core.run import Run

from .cluster import Cluster, Object
from .errors import ApiError

WRITERS = 4
_MOST = 10_000
"""Events that wait at most, for a cluster that takes none; what comes then is left out."""
_LAST_SECONDS = 2.0


class EventRecorder:
    """Takes Events without waiting, and writes them as the cluster takes them. They are news, not truth: some may be lost."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._told: asyncio.Queue[Object] = asyncio.Queue(_MOST)

    def record(self, run: Run, event: Event, time: str) -> None:
        """Have an Event written that tells of ``run`` as of ``time``."""
        with contextlib.suppress(asyncio.QueueFull):
            self._told.put_nowait(_manifest(run, event, time))

    async def write(self) -> None:
        """Write what is told, for ever. One that cannot be written is left out."""
        while True:
            manifest = await self._told.get()
            try:
                await self._cluster.create(manifest)
            except ApiError:
                continue
            finally:
                self._told.task_done()

    async def flush(self) -> None:
        """Wait until all is written that was told, for a moment at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                await self._told.join()


def _manifest(run: Run, event: Event, time: str) -> Object:
    mark = hashlib.sha256(f"{run.uid} {time} {event}".encode()).hexdigest()[:16]
    about = {"apiVersion": API_VERSION, "kind": KIND, "name": run.name, "namespace": run.namespace, "uid": run.uid}
    return {
        "apiVersion": "v1", "kind": EVENT.name, "metadata": {"name": f"{run.name}.{mark}", "namespace": run.namespace},
        "involvedObject": about, "type": event.type, "reason": event.reason, "message": event.message, "count": 1,
        "firstTimestamp": time, "lastTimestamp": time, "source": {"component": MANAGED_BY}, "reportingComponent": MANAGED_BY,
        "reportingInstance": MANAGED_BY,
    }  # fmt: skip
