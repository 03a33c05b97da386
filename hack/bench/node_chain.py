"""A run as a chain of times without gaps: from ``apply``, through the stages that the next one waited for, to its end."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from node_witness import Pod, Run, Witness

ORDER = (("dataset", "model"), ("tokenization",), ("training",), ("evaluation",))
"""Stages that run at the same time, group after group."""
CLIENT, CONTROLLERS, PLACE, START, WORK, END = "client", "controllers", "place", "start", "work", "end"
"""Whose time it is: who makes the children (the operator, or the bare client), the controllers that make pods of them, the scheduler until
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
    """What a run's time was spent on; the links add up to the whole."""

    links: tuple[Link, ...]
    first_started: float
    """Seconds from ``apply`` until containerd had started a first container."""
    first_running: float
    """Seconds from ``apply`` until the API server told that a first pod runs."""

    @property
    def clients(self) -> list[float]:
        """What the client took each time that it was its turn."""
        return [link.seconds for link in self.links if link.whose == CLIENT]

    @property
    def seconds(self) -> float:
        """The whole."""
        return sum(link.seconds for link in self.links)

    def of(self, whose: str) -> float:
        """All that is one's own."""
        return sum(link.seconds for link in self.links if link.whose == whose)

    def handovers(self) -> list[dict[str, float]]:
        """For each container that waited for another one: the parts of the time between that one's end and its own start."""
        groups = [{one.whose: one.seconds for one in self.links if one.stage == group} for group in _stages(self)]
        return [
            {END: before[END], **{whose: after[whose] for whose in (CLIENT, CONTROLLERS, PLACE, START)}}
            for before, after in pairwise(groups)
        ]


def chain(witness: Witness, name: str, began: float) -> Chain:
    """The chain of a finished run, the operator's or a bare one."""
    run, links, at = witness.runs[name], list[Link](), began
    for group in ORDER:
        stage, pod = max(((stage, run.of(stage)) for stage in group), key=lambda one: _told(one[1].ended))
        times = {
            CLIENT: run.children.get(stage, pod.made), CONTROLLERS: pod.made, PLACE: _told(pod.placed), START: witness.started[pod.container],
            WORK: witness.exited[pod.container], END: _told(pod.ended),
        }  # fmt: skip
        for whose, until in times.items():
            links.append(Link(whose, stage, until - at))
            at = until
    if run.finished is not None:
        links.append(Link(CLIENT, "", run.finished - at))
    pods = run.pods.values()
    first_started = min(witness.started[pod.container] for pod in pods)
    return Chain(tuple(links), first_started - began, min(_running(pod) for pod in pods) - began)


def seen_whole(witness: Witness, name: str) -> bool:
    """Whether all is known of a run that has ended: containerd's word may come after the API server's."""
    pods: dict[str, Pod] = witness.runs.get(name, Run()).pods
    return bool(pods) and all(pod.phase == "Succeeded" and pod.container in witness.exited for pod in pods.values())


def _stages(one: Chain) -> list[str]:
    return [link.stage for link in one.links if link.whose == WORK]


def _told(when: float | None) -> float:
    assert when is not None, "a run is looked at when all is known of it"
    return when


def _running(pod: Pod) -> float:
    """A container that ends soon may never be told as running."""
    return pod.running if pod.running is not None else _told(pod.ended)
