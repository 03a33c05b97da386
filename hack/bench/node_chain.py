"""A run as a chain of times without gaps: from ``apply``, through the last stage of each group, to its end."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from node_observer import NodeObserver, Pod, Run

ORDER = (("dataset", "model"), ("tokenization",), ("training",), ("evaluation",))
"""Groups of stages, in order; the stages of a group run at the same time."""
CLIENT, CONTROLLERS, PLACE, START, WORK, END = "client", "controllers", "place", "start", "work", "end"
"""The component whose time it is: the one that creates the children (the operator, or the bare client), the controllers that make pods of them, the scheduler until
there is room on the node, kubelet and containerd until the container runs, the stage's program, and the kubelet until the API server
knows of the container's end."""


@dataclass(frozen=True)
class Link:
    """One part of the chain; ``stage`` is empty after the last stage."""

    whose: str
    stage: str
    seconds: float


@dataclass(frozen=True)
class Chain:
    """The time of a run by component; the links add up to the whole."""

    links: tuple[Link, ...]
    first_started: float
    """Seconds from ``apply`` until containerd had started a first container."""
    first_running: float
    """Seconds from ``apply`` until the API server reports the first running pod."""

    @property
    def clients(self) -> list[float]:
        """Return the seconds of the client's links."""
        return [link.seconds for link in self.links if link.whose == CLIENT]

    @property
    def seconds(self) -> float:
        """Return the sum of all links, in seconds."""
        return sum(link.seconds for link in self.links)

    def of(self, whose: str) -> float:
        """Return the seconds of one component."""
        return sum(link.seconds for link in self.links if link.whose == whose)

    def handovers(self) -> list[dict[str, float]]:
        """Return, for each container that waited for another one, the parts of the time from that end to its own start."""
        groups = [{one.whose: one.seconds for one in self.links if one.stage == group} for group in _stages(self)]
        return [
            {END: before[END], **{whose: after[whose] for whose in (CLIENT, CONTROLLERS, PLACE, START)}}
            for before, after in pairwise(groups)
        ]


def chain(observer: NodeObserver, name: str, began: float) -> Chain:
    """Return the chain of a finished run, of the operator or the bare client."""
    run, links, at = observer.runs[name], list[Link](), began
    for group in ORDER:
        stage, pod = max(((stage, run.of(stage)) for stage in group), key=lambda one: _told(one[1].ended))
        times = {
            CLIENT: run.children.get(stage, pod.made), CONTROLLERS: pod.made, PLACE: _told(pod.placed), START: observer.started[pod.container],
            WORK: observer.exited[pod.container], END: _told(pod.ended),
        }  # fmt: skip
        for whose, until in times.items():
            links.append(Link(whose, stage, until - at))
            at = until
    if run.finished is not None:
        links.append(Link(CLIENT, "", run.finished - at))
    pods = run.pods.values()
    first_started = min(observer.started[pod.container] for pod in pods)
    return Chain(tuple(links), first_started - began, min(_running(pod) for pod in pods) - began)


def seen_whole(observer: NodeObserver, name: str) -> bool:
    """Return whether the times of a finished run are complete: containerd's events may come after those of the API server."""
    pods: dict[str, Pod] = observer.runs.get(name, Run()).pods
    return bool(pods) and all(pod.phase == "Succeeded" and pod.container in observer.exited for pod in pods.values())


def _stages(one: Chain) -> list[str]:
    return [link.stage for link in one.links if link.whose == WORK]


def _told(when: float | None) -> float:
    assert when is not None, "a run is looked at when all is known of it"
    return when


def _running(pod: Pod) -> float:
    """A container that ends soon may never be reported as running."""
    return pod.running if pod.running is not None else _told(pod.ended)
