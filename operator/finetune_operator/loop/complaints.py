"""What controllers say in Events of the objects that keep a run waiting.

Only Events tell why a Job has no pods or a claim no volume: neither object's status does. They are listed by the uid of what they
are about, so that those of an earlier object of the same name are not heard.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import datetime
from typing import Any

from finetune_operator.api.kinds import CLAIM, EVENT, JOB, TRAINJOB
from finetune_operator.core.observation import Complaint, Ref
from finetune_operator.core.times import moment

from .cluster import Cluster
from .errors import Forbidden, NotFound

_JOBSET_LABEL = "jobset.sigs.k8s.io/jobset-name"
"""Carried by the Jobs of a JobSet, which has the name of its TrainJob."""


async def complaints(cluster: Cluster, namespace: str, about: Iterable[Ref], now: datetime) -> dict[Ref, tuple[Complaint, ...]]:
    """The Events of each object, newest first: warnings, and every one of a claim, whose waiting is told as normal.

    Raises:
        ApiError: a call failed. A missing right is none: without Events a run is only less well explained.
    """
    found = {}
    for ref in about:
        warnings = {} if ref.kind == CLAIM else {"type": "Warning"}
        told: list[Mapping[str, Any]] = []
        try:
            async for source in _sources(cluster, namespace, ref):
                told += (await cluster.list(EVENT, namespace, fields={**source, **warnings})).items
        except (NotFound, Forbidden):
            continue
        if told:
            found[ref] = tuple(_complaint(event, now) for event in sorted(told, key=_last, reverse=True))
    return found


async def _sources(cluster: Cluster, namespace: str, ref: Ref) -> AsyncIterator[dict[str, str]]:
    """The selectors of what is said about an object, and about what a TrainJob has become."""
    item = await cluster.get(ref.kind, namespace, ref.name)
    yield {"involvedObject.uid": item["metadata"]["uid"]}
    if ref.kind == TRAINJOB:
        yield {"involvedObject.kind": "JobSet", "involvedObject.name": ref.name}
        for job in (await cluster.list(JOB, namespace, labels={_JOBSET_LABEL: ref.name})).items:
            yield {"involvedObject.uid": job["metadata"]["uid"]}


def _complaint(event: Mapping[str, Any], now: datetime) -> Complaint:
    first = event.get("firstTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
    return Complaint(event.get("reason") or "", event.get("message") or "", (now - moment(first)).total_seconds())


def _last(event: Mapping[str, Any]) -> datetime:
    series = event.get("series") or {}
    last = event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime")
    return moment(last or event["metadata"]["creationTimestamp"])
