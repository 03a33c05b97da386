"""What the API server's audit log says of who asked for what, and when."""

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
"""Of a child, by the words in their names: which one follows its end."""


@dataclass(frozen=True)
class Request:
    """One request that was answered well."""

    user: str
    verb: str
    resource: str
    namespace: str
    name: str
    ended: float
    """Seconds since the epoch when the answer was complete."""


def requests(file: Path, namespace: str) -> Iterator[Request]:
    """The requests about a namespace, in their order."""
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
    """How often somebody wrote to what; Events and Leases are left out."""
    return Counter(
        f"{one.verb} {one.resource}"
        for one in found
        if one.user == user and one.verb in WRITES and one.resource not in _NOT_COUNTED
    )


def calls(found: Iterable[Request], user: str) -> Counter[str]:
    """All that somebody asked for."""
    return Counter(f"{one.verb} {one.resource}" for one in found if one.user == user)


def handovers(found: Iterable[Request], user: str) -> list[float]:
    """Seconds from the end of the last child of a step (its pod's last status is stored) to the next child's creation."""
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
    """``run-00001-train-1-1-node-0-0-x2k4p`` -> ``run-00001``, ``train``."""
    words = name.split("-")
    return "-".join(words[:2]), words[2]
