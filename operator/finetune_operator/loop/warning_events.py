"""What controllers say in Events of the objects that keep a run waiting.

Only Events tell why a Job has no pods or a claim no volume: neither object's status does. They are listed by the uid of what they
are about, so that those of an earlier object of the same name are not heard.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from finetune_operator.api.kinds import CLAIM, EVENT, JOB, TRAINJOB
from finetune_operator.core.observation import Ref, WarningEvent
from finetune_operator.core.times import moment

from .cluster import Cluster, Object
from .errors import Forbidden, NotFound
from .pager import list_all

_A_SECOND, _AT_ONCE = 0.5, 5
"""Questions that are asked in the long run, and at once. The API server reads every Event of the namespace for each of them."""
_JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
"""Carried by the Jobs of a JobSet, which has the name of its TrainJob."""


class WarningEvents:
    """Asks for warning events, within bounds: when a thousand runs wait for a full cluster, what was heard last is as good."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._allowance, self._counted = float(_AT_ONCE), clock()
        self._heard: dict[tuple[str, Ref], tuple[WarningEvent, ...]] = {}

    async def __call__(
        self, cluster: Cluster, namespace: str, about: Iterable[Ref], now: datetime
    ) -> dict[Ref, tuple[WarningEvent, ...]]:
        """What is said of each object, as of now or of the last time that somebody asked.

        Raises:
            ApiError: a call failed.
        """
        found = {}
        for ref in about:
            if self._may_ask():
                answer = (await warning_events(cluster, namespace, (ref,), now)).get(ref)
                self._heard.pop((namespace, ref), None)
                if answer:
                    self._heard[namespace, ref] = answer
            if (namespace, ref) in self._heard:
                found[ref] = self._heard[namespace, ref]
        return found

    def _may_ask(self) -> bool:
        now = self._clock()
        self._allowance = min(_AT_ONCE, self._allowance + (now - self._counted) * _A_SECOND)
        self._counted = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


async def warning_events(
    cluster: Cluster, namespace: str, about: Iterable[Ref], now: datetime
) -> dict[Ref, tuple[WarningEvent, ...]]:
    """The Events of each object, newest first: warnings, and every one of a claim, whose waiting is told as normal.

    Raises:
        ApiError: a call failed. A missing right is none: without Events a run is only less well explained.
    """
    found = {}
    for ref in about:
        warnings = {} if ref.kind == CLAIM else {"type": "Warning"}
        events: list[Mapping[str, Any]] = []
        try:
            item = await cluster.get(ref.kind, namespace, ref.name)
            created = moment(item["metadata"]["creationTimestamp"])
            async for source in _sources(cluster, namespace, ref, item):
                listed = list_all(cluster, EVENT, namespace, fields={**source, **warnings})
                # An earlier JobSet may have had the same name.
                events += [event async for event in listed if _last(event) >= created]
        except (NotFound, Forbidden):
            continue
        if events:
            found[ref] = tuple(_warning_event(event, now) for event in sorted(events, key=_last, reverse=True))
    return found


async def _sources(cluster: Cluster, namespace: str, ref: Ref, item: Object) -> AsyncIterator[dict[str, str]]:
    """The selectors of what is said about an object, and about what a TrainJob has become."""
    yield {"involvedObject.uid": item["metadata"]["uid"]}
    if ref.kind == TRAINJOB:
        yield {"involvedObject.kind": "JobSet", "involvedObject.name": ref.name}
        async for job in list_all(cluster, JOB, namespace, labels={_JOBSET_LABEL: ref.name}):
            yield {"involvedObject.uid": job["metadata"]["uid"]}


def _warning_event(event: Mapping[str, Any], now: datetime) -> WarningEvent:
    first = event.get("firstTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
    seconds, lasting = (now - moment(first)).total_seconds(), (_last(event) - moment(first)).total_seconds()
    return WarningEvent(event.get("reason") or "", event.get("message") or "", seconds, lasting)


def _last(event: Mapping[str, Any]) -> datetime:
    series = event.get("series") or {}
    last = event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime")
    return moment(last or event["metadata"]["creationTimestamp"])
