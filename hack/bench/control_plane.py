"""The operator on a real control plane, compared with a client that makes no decisions and creates the same children.

::

    python hack/bench/control_plane.py [throughput] [handover] [idle] [cold-start] [--runs N]

throughput   all runs at once, to their ends: time, memory, processor time, writes and Events of a run
handover     runs that come and go: from the end of a child to the creation of the next, by the audit log
idle         runs that wait: what is written when nothing changes
cold-start   finished runs that a new operator finds: time until all were looked at, memory
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).parent))

from audit_log import Request, calls, handovers, requests, writes
from figures import machine, spread
from kubernetes_cluster import Cluster, Operator, cluster
from node_chain import ORDER
from runs import applied

from finetune_operator.api.kinds import FINETUNERUN
from finetune_operator.kube.client import ApiServer
from finetune_operator.kube.credentials import load_credentials

ACTIVE = 100
HANDOVERS_A_SECOND = 5.0
_STAGES = sum(map(len, ORDER))
_STEPS, _HANDOVERS = len(ORDER), len(ORDER) - 1
"""Of a run: steps one after the other, and children that are made when others end."""
RESYNC_SECONDS = 15
_POLL_SECONDS = 0.25


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help="parts to measure (all)")
    parser.add_argument("--runs", type=int, help="number of runs, if fewer than usual")
    parser.add_argument("--rate", type=float, default=HANDOVERS_A_SECOND, help="handovers each second (5)")
    parser.add_argument("--seconds", type=float, default=120.0, help="duration of the part handover, in seconds (120)")
    parser.add_argument("--rounds", type=int, default=1, help="repetitions of throughput (1); use several on a busy machine")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {min(unknown)}; there are {', '.join(PARTS)}")
    print("control plane")
    print(machine())
    for part in options.parts or PARTS:
        with cluster() as found:
            asyncio.run(PARTS[part](found, options))


async def throughput(bench: Cluster, options: argparse.Namespace) -> None:
    """Measure all runs at once, round by round: the bare client, then the operator."""
    runs, bare, ours = options.runs or 1000, [], []
    for number in range(1, options.rounds + 1):
        bare.append(await _bare(bench, bench.namespace(f"bare-{number}"), runs))
        ours.append(await _ours(bench, bench.namespace(f"ours-{number}"), runs))
    found = list(requests(bench.audit, f"ours-{options.rounds}"))
    wrote, asked = writes(found, "operator"), calls(found, "operator")
    told = asked["create events"]
    print(f"throughput, {runs} runs of {_STAGES} stages")
    print(f"  bare client (baseline): {spread(bare, 's')}")
    print(f"  operator: {spread([one.seconds for one in ours], 's')}")
    ratios = [one.seconds / baseline for one, baseline in zip(ours, bare, strict=True)]
    print(f"  ratio of operator to bare client, by round: {spread(ratios, 'times')} (target: at most 1.8)")
    print(f"  operator, processor: {spread([one.processor / runs for one in ours], 'ms a run', 1000)}")
    print(f"  operator, memory at most: {spread([one.peak for one in ours], 'MB')} (target: at most 150)")
    print(f"  writes a run: {wrote.total() / runs:.2f} (target: at most 18): {_list(wrote, runs)}")
    print(f"  Events a run: {told / runs:.2f} (target: at most 10)")
    print(f"  calls a run: {asked.total() / runs:.1f}: {_list(asked, runs)}")
    _print_handovers(found, requests(bench.audit, f"bare-{options.rounds}"))


@dataclass(frozen=True)
class _Measured:
    seconds: float
    processor: float
    peak: float


async def _bare(bench: Cluster, namespace: str, runs: int) -> float:
    with bench.node(namespace):
        began = time.monotonic()
        with bench.bare_client(namespace, runs, active=runs, rate=0.0) as process:
            await _until(lambda: process.poll() is not None)
    if process.returncode != 0:
        raise SystemExit("the bare client failed")
    return time.monotonic() - began


async def _ours(bench: Cluster, namespace: str, runs: int) -> _Measured:
    with bench.node(namespace), bench.operator(namespace) as operator:
        seconds = await _to_the_end(bench, operator, namespace, runs)
        measured = _Measured(seconds, operator.cpu_seconds(), operator.resident_mb("VmHWM"))
        await asyncio.sleep(3)
    return measured


async def handover(bench: Cluster, options: argparse.Namespace) -> None:
    """Measure a steady number of runs at the same time."""
    active = min(options.runs or ACTIVE, ACTIVE)
    seconds_a_pod = active * _HANDOVERS / _STEPS / options.rate
    rate = options.rate / _HANDOVERS
    runs = int(rate * options.seconds)
    bare, ours = bench.namespace("bare"), bench.namespace("ours")
    with bench.node(bare, seconds_a_pod), bench.bare_client(bare, runs, active=2 * active, rate=rate) as process:
        await _until(lambda: process.poll() is not None)
    with bench.node(ours, seconds_a_pod), bench.operator(ours) as operator:
        await _to_the_end(bench, operator, ours, runs, rate)
    print(f"handover, {runs} runs, about {active} at the same time, {options.rate:g} handovers a second")
    _print_handovers(list(requests(bench.audit, ours)), requests(bench.audit, bare))


async def idle(bench: Cluster, options: argparse.Namespace) -> None:
    """Measure runs whose pods do not end."""
    runs = options.runs or 100
    ours = bench.namespace("ours")
    with bench.node(ours, seconds=86400), bench.operator(ours, resyncSeconds=RESYNC_SECONDS) as operator:
        async with _calls(bench) as server:
            _ = [document async for document in applied(server, ours, runs)]
        await asyncio.sleep(30)
        began, passes = time.time(), operator.metric("finetune_reconcile_seconds_count")
        await asyncio.sleep(2.5 * RESYNC_SECONDS)
        passes = operator.metric("finetune_reconcile_seconds_count") - passes
    found = [one for one in requests(bench.audit, ours) if one.ended > began]
    wrote = writes(found, "operator")
    wrote.update(
        {"create events": sum(one.verb == "create" and one.resource == "events" for one in found if one.user == "operator")}
    )
    print(f"idle, {runs} runs in mid-stage, two resyncs")
    print(f"  passes: {passes:.0f}; writes: {wrote.total()} (target: 0) {_list(+wrote, 1)}")


async def cold_start(bench: Cluster, options: argparse.Namespace) -> None:
    """Measure a new operator with finished runs."""
    runs = options.runs or 10_000
    ours = bench.namespace("ours")
    async with _calls(bench) as server:
        with bench.node(ours), bench.operator(ours) as operator:
            await _to_the_end(bench, operator, ours, 1)
        status = (await server.get(FINETUNERUN, ours, "run-00000"))["status"]
        finished = bench.namespace("finished")
        async for document in applied(server, finished, runs):
            await server.patch_status(FINETUNERUN, finished, document["metadata"]["name"], {"status": status})
    began = time.monotonic()
    with bench.operator(finished) as operator:
        leads = time.monotonic() - began
        async with _calls(bench) as server:
            await server.create(_one_more(finished))
        await _until(lambda: operator.metric('finetune_transitions_total{reason="RunStarted"}') >= 1)
        await _until(lambda: operator.metric('finetune_runs{phase="Succeeded"}') >= runs)
        await _quiet(operator)
        seconds, peak, busy = time.monotonic() - began, operator.resident_mb("VmHWM"), operator.cpu_seconds()
        resident, passes = operator.resident_mb(), operator.metric("finetune_reconcile_seconds_count")
    print(f"cold start, {runs} finished runs")
    print(f"  leader after {leads:.1f} s; idle with all runs in its cache after {seconds:.1f} s (target: at most 30)")
    print(f"  processor: {busy:.1f} s; passes: {passes:.0f}")
    print(f"  memory: {resident:.0f} MB, at most {peak:.0f} MB (target: at most 300)")


PARTS = {"throughput": throughput, "handover": handover, "idle": idle, "cold-start": cold_start}


def _one_more(namespace: str) -> dict[str, Any]:
    from kubernetes_cluster import SPEC

    metadata = {"name": "one-more", "namespace": namespace}
    return {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": SPEC}


@contextlib.asynccontextmanager
async def _calls(bench: Cluster) -> AsyncIterator[ApiServer]:
    credentials = load_credentials(bench.kubeconfig("user"))
    async with aiohttp.ClientSession() as session:
        yield ApiServer(session, credentials.address, tls=credentials.tls())


async def _to_the_end(bench: Cluster, operator: Operator, namespace: str, runs: int, rate: float = 0.0) -> float:
    """Apply runs, wait until all have succeeded, and return the seconds."""
    began = time.monotonic()
    async with _calls(bench) as server:
        async for _ in applied(server, namespace, runs, rate):
            pass
        await _until(lambda: operator.metric('finetune_transitions_total{reason="RunSucceeded"}') >= runs)
    return time.monotonic() - began


async def _until(condition: Callable[[], bool], seconds: float = 3600.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the runs did not end in time")
        await asyncio.sleep(_POLL_SECONDS)


async def _quiet(operator: Operator) -> None:
    """Wait until the operator is idle."""
    while True:
        before = operator.cpu_seconds()
        await asyncio.sleep(1.0)
        if operator.cpu_seconds() - before < 0.1:
            return


def _print_handovers(ours: list[Request], bare: Any) -> None:
    for who, times in (("bare client (baseline)", handovers(list(bare), "bare")), ("operator", handovers(ours, "operator"))):
        ordered = sorted(times)
        if ordered:
            p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
            print(f"  end of a child to creation of the next, {who}: {spread(times, 'ms', 1000)}, p99 {1000 * p99:.0f} ms")


def _list(counted: Counter[str], runs: int) -> str:
    return ", ".join(f"{what} {count / runs:.2f}" for what, count in counted.most_common())


if __name__ == "__main__":
    main()
