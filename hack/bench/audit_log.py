"""Requests in the API server's audit log: user, verb, resource and time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

WRITES = ("create", "update", "patch", "delete")
_NOT_COUNTED = ("events", "leases")
_NEXT = {"dataset": "tokenization", "model": "tokenization", "tokenization": "train", "train": "eval"}
"""The stage that follows the end of each stage, both as child names have them."""


@dataclass(frozen=True)
class Request:
    """One successful request."""

    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    ended: float
    """Seconds since the epoch when the answer was complete."""


def requests(file: Path, namespace: str) -> Iterator[Request]:
    """Yield the requests for objects of a namespace, in the order of the log."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            about = entry.get("objectRef") or {}
            if about.get("namespace") != namespace or entry.get("responseStatus", {}).get("code", 0) >= 400:
                continue
            resource = f"{about['resource']}/{about['subresource']}" if "subresource" in about else about["resource"]
            ended = datetime.fromisoformat(entry["stageTimestamp"]).timestamp()
            user = entry["user"]["username"].rpartition(":")[2].removeprefix("bench-")
            yield Request(user, entry["verb"], resource, namespace, about.get("name", ""), ended)


def writes(found: Iterable[Request], user: str) -> Counter[str]:
    """Return the number of writes of a user, by verb and resource. Events and Leases are left out."""
    return Counter(
        f"{one.verb} {one.resource}"
        for one in found
        if one.user == user and one.verb in WRITES and one.resource not in _NOT_COUNTED
    )


def calls(found: Iterable[Request], user: str) -> Counter[str]:
    """Return the number of all requests of a user, by verb and resource."""
    return Counter(f"{one.verb} {one.resource}" for one in found if one.user == user)


def handovers(found: Iterable[Request], user: str) -> list[float]:
    """Return the seconds from the end of the last child of a step (its pod's last status is stored) to the next child's creation."""
    ended: dict[tuple[str, str], float] = {}
    times = []
    for one in sorted(found, key=lambda request: request.ended):
        if (one.user, one.verb, one.resource) == ("node", "patch", "pods/status"):
            run, stage = _parts(one.name)
            if stage in _NEXT:
                ended[run, _NEXT[stage]] = one.ended
        elif one.user == user and one.verb == "create" and one.resource in ("jobs", "trainjobs"):
            run, stage = _parts(one.name)
            if (run, stage) in ended:
                times.append(one.ended - ended.pop((run, stage)))
    return times


def _parts(name: str) -> tuple[str, str]:
    """Split a child's name: ``run-00001-train-1-1-node-0-0-x2k4p`` into ``run-00001`` and ``train``."""
    words = name.split("-")
    return "-".join(words[:2]), words[2]
