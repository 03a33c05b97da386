"""The figures of ``real_node.py``: medians with their spread, and differences of pairs."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from operator import methodcaller

from figures import spread
from node_chain import CLIENT, CONTROLLERS, END, ORDER, PLACE, START, WORK, Chain

Pair = tuple[Chain, Chain]
"""A run of the operator, and the bare one after it."""
_STAGES = sum(map(len, ORDER))
_WHOSE = (
    (CLIENT, "operator"), (CONTROLLERS, "controllers"), (PLACE, "scheduler (there is room for one of dataset and model on two cores)"),
    (START, "kubelet, containerd"), (WORK, "stages' programs"), (END, "kubelet, ends"),
)  # fmt: skip


def report(pairs: Sequence[Pair]) -> None:
    """Print the figures of runs that reuse every result."""
    ours, bare = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    print(f"  runs that reuse every result, and the same pods created directly, in turn: {len(pairs)} pairs")
    _compared("apply to the first container started", pairs, lambda one: one.first_started)
    _compared("apply to the first pod told as running", pairs, lambda one: one.first_running)
    handovers("hand-over", ours)
    handovers("hand-over by the bare client (baseline)", bare)
    _compared("whole run, from apply to its end told", pairs, lambda one: one.seconds)
    _compared("the same without the wait for a place on the node", pairs, lambda one: one.seconds - one.of(PLACE))
    for whose, who in _WHOSE:
        print(f"    of the difference, {who}: {_differences(pairs, methodcaller('of', whose))}")
    print(f"  the operator's own time in a run: {_spread([one.of(CLIENT) for one in ours])}")
    print(f"    apply to the first child created: {_spread([one.clients[0] for one in ours])}")
    print(f"    hand-overs: {_spread([seconds for one in ours for seconds in one.clients[1:-1]])}")
    print(f"    the report of the last stage's end to the run's final status: {_spread([one.clients[-1] for one in ours])}")
    print(f"    a stage: {_spread([one.of(CLIENT) for one in ours], _STAGES)} (target: at most 100 ms)")
    print(f"    a stage, beyond the bare client's own: {_differences(pairs, lambda one: one.of(CLIENT), _STAGES)}")


def handovers(title: str, chains: Sequence[Chain]) -> None:
    """Print the times between one container's end and the start of the next one."""
    found = [parts for one in chains for parts in one.handovers()]
    print(f"  {title}, container ended to next container started: {_spread([sum(one.values()) for one in found])}")
    print(f"    to the end in the API server (kubelet): {_spread([one[END] for one in found])}")
    if any(one[CONTROLLERS] for one in found):
        print(f"    to the next child created (operator; target: at most 100 ms): {_spread([one[CLIENT] for one in found])}")
        print(f"    to its pod created (Job; Trainer, JobSet and Job): {_spread([one[CONTROLLERS] for one in found])}")
    else:
        print(f"    to the next pod created (client): {_spread([one[CLIENT] for one in found])}")
    print(f"    to its node (scheduler): {_spread([one[PLACE] for one in found])}")
    print(f"    to its container started (kubelet, containerd): {_spread([one[START] for one in found])}")


def _compared(title: str, pairs: Sequence[Pair], value: Callable[[Chain], float]) -> None:
    print(f"  {title}")
    for who, chains in (("ours", [pair[0] for pair in pairs]), ("bare (baseline)", [pair[1] for pair in pairs])):
        print(f"    {who}: {spread([value(one) for one in chains], 's')}")
    print(f"    difference of pairs: {_differences(pairs, value)}")


def _differences(pairs: Sequence[Pair], value: Callable[[Chain], float], parts: int = 1) -> str:
    return _spread([value(ours) - value(bare) for ours, bare in pairs], parts)


def _spread(seconds: Sequence[float], parts: int = 1) -> str:
    scaled = [1000 * one / parts for one in seconds]
    return f"median {statistics.median(scaled):.0f} ms ({min(scaled):.0f} to {max(scaled):.0f}, n={len(scaled)})"
