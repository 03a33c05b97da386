"""Events about the objects that a run waits for.

Only Events contain the reason why a Job has no pods or a claim has no volume: the status of these objects does not. They are listed
by the uid of the object, so that those about an earlier object of the same name are left out.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from finetune_operator.api.kinds import CLAIM, EVENT, JOB, TRAINJOB
from finetune_operator.core.messages import READ_LIMIT
from finetune_operator.core.observation import Ref, WarningEvent
from finetune_operator.core.times import moment

from .cluster import Cluster, Object
from .errors import Forbidden, NotFound
from .lineage import controller_uid, jobset_of
from .pager import list_all

_RATE, _BURST = 0.5, 5
"""Objects per second whose Events are listed on average, and at once. The API server reads all Events of the namespace for each."""
_EVENTS_LIMIT = 200
"""Events about one object that are read, the first of its list: whoever may create Events can create any number of them."""
_JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
"""Label of the Jobs of a JobSet, which has the name of its TrainJob."""


class WarningEvents:
    """Cache of warning events, with a rate limit for reads: a thousand runs may wait for a full cluster at the same time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens, self._updated = float(_BURST), clock()
        self._events: dict[tuple[str, Ref], tuple[WarningEvent, ...]] = {}

    async def read(
        self, cluster: Cluster, namespace: str, about: Iterable[Ref], now: datetime
    ) -> dict[Ref, tuple[WarningEvent, ...]]:
        """Return the warning events about each object; from the cache where the rate limit allows no read.

        Raises:
            ApiError: a call failed.
        """
        events_of: dict[Ref, tuple[WarningEvent, ...]] = {}
        for ref in about:
            if self._take_token():
                events = (await list_warning_events(cluster, namespace, (ref,), now)).get(ref)
                self._events.pop((namespace, ref), None)
                if events:
                    self._events[namespace, ref] = events
            if (namespace, ref) in self._events:
                events_of[ref] = self._events[namespace, ref]
        return events_of

    def _take_token(self) -> bool:
        now = self._clock()
        self._tokens = min(_BURST, self._tokens + (now - self._updated) * _RATE)
        self._updated = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


async def list_warning_events(
    cluster: Cluster, namespace: str, about: Iterable[Ref], now: datetime
) -> dict[Ref, tuple[WarningEvent, ...]]:
    """Return the Events about each object, newest first: warnings, and all of a claim, whose waiting is reported as normal.

    Without the right to list Events, the result is empty.

    Raises:
        ApiError: a call failed.
    """
    events_of: dict[Ref, tuple[WarningEvent, ...]] = {}
    for ref in about:
        warnings = {} if ref.kind == CLAIM else {"type": "Warning"}
        events: list[Mapping[str, Any]] = []
        try:
            item = await cluster.get(ref.kind, namespace, ref.name)
            async for source in _sources(cluster, namespace, ref, item):
                listed = await cluster.list(EVENT, namespace, fields={**source, **warnings}, limit=_EVENTS_LIMIT)
                events += listed.items
        except (NotFound, Forbidden):
            continue
        if events:
            events_of[ref] = tuple(_warning_event(event, now) for event in sorted(events, key=_last, reverse=True))
    return events_of


async def _sources(cluster: Cluster, namespace: str, ref: Ref, item: Object) -> AsyncIterator[dict[str, str]]:
    """Yield the field selectors of the Events about an object, and about the JobSet of a TrainJob and the Jobs of that."""
    yield {"involvedObject.uid": item["metadata"]["uid"]}
    if ref.kind == TRAINJOB and (jobset := await jobset_of(cluster, item)):
        yield {"involvedObject.uid": jobset}
        async for job in list_all(cluster, JOB, namespace, labels={_JOBSET_LABEL: ref.name}):
            if controller_uid(job) == jobset:
                yield {"involvedObject.uid": job["metadata"]["uid"]}


def _warning_event(event: Mapping[str, Any], now: datetime) -> WarningEvent:
    first = event.get("firstTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
    seconds, active_seconds = (now - moment(first)).total_seconds(), (_last(event) - moment(first)).total_seconds()
    return WarningEvent(event.get("reason") or "", (event.get("message") or "")[:READ_LIMIT], seconds, active_seconds)


def _last(event: Mapping[str, Any]) -> datetime:
    series = event.get("series") or {}
    last = event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime")
    return moment(last or event["metadata"]["creationTimestamp"])
