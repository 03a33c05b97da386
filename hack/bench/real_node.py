"""The operator on a real node, compared with the same pods created directly: from ``apply`` to the first pod, from pod to pod, whole runs.

::

    python hack/bench/real_node.py [--pairs N] [--working N]

A node of its own is started, and the operator deployed on it from its image. One run does the work; then runs that find every result
take turns with bare clients that make the same pods, each as soon as the one before has ended. Their stages are the real programs with
little to do, so that the difference is not lost in the work. ``--working`` adds runs that train and evaluate again. As root.
``FINETUNE_IMAGES`` names archives instead of those that ``hack/images`` makes of this checkout, as for the tests on a node.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("hack", "hack/example", "tests")]

import aiohttp  # noqa: E402
from bare_pods import BarePods  # noqa: E402
from figures import machine, spread  # noqa: E402
from node_chain import ORDER, Chain, chain, seen_whole  # noqa: E402
from node_observer import NodeObserver  # noqa: E402
from node_report import Pair, handovers, report  # noqa: E402

from controlplane.api import eventually  # noqa: E402
from controlplane.binaries import build  # noqa: E402
from controlplane.programs import GENERATIONS  # noqa: E402
from deployed import deployed_at  # noqa: E402
from finetune_operator.api.kinds import FINETUNERUN  # noqa: E402
from finetune_operator.kube.client import ApiServer  # noqa: E402
from finetune_operator.kube.credentials import load_credentials  # noqa: E402
from node.cluster import NodeCluster  # noqa: E402
from node.configuration import SOCKET  # noqa: E402
from node.machine import blocker, program  # noqa: E402

Object = dict[str, Any]
NAMESPACE, CLAIM = "bench", "models"
_SETTLED_SECONDS = 2.0
"""Pause after a run, in which controllers finish their writes about it."""


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9, help="pairs of a run and a bare run (9)")
    parser.add_argument("--working", type=int, default=3, help="runs that train and evaluate without reuse (3)")
    options = parser.parse_args()
    if (reason := blocker()) is not None:
        raise SystemExit(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the node goes with whoever ends this
    with _deployed() as plane:
        asyncio.run(measure(plane, options.pairs, options.working))


async def measure(plane: NodeCluster, pairs: int, working: int) -> None:
    """Measure on a node with the operator in it."""
    access = plane.access
    if access is None:
        raise SystemExit("node: not running any more; see .cache/node")
    credentials = load_credentials(access.kubeconfig)
    listen = plane.namespaces.enter(
        program("env"), "TZ=UTC", program("ctr"), "--address", SOCKET, "--namespace", "k8s.io", "events"
    )
    async with aiohttp.ClientSession() as session:
        bench = _Bench(ApiServer(session, credentials.address, tls=credentials.tls()))
        async with bench.observer.watching(bench.server, NAMESPACE, listen):
            print(f"real node\n{machine()}", flush=True)
            await bench.ours("first-run")
            bare = await bench.pattern("pattern-run")
            measured: list[Pair] = []
            busy: list[float] = []
            for number in range(pairs):
                before = _operator_seconds(plane)
                ours = await bench.ours(f"ours-{number}", reused=True)
                busy.append(_operator_seconds(plane) - before)
                measured.append((ours, await bench.bare(bare, f"bare-{number}")))
            report(measured)
            print(f"  processor time of the operator in such a run, with the standby replica: {spread(busy, 'ms', 1000)}")
            if working:
                anew = [await bench.ours(f"anew-{number}", seed=1000 + number) for number in range(working)]
                handovers("hand-over of runs that train and evaluate", anew)
            print(machine())


class _Bench:
    """Runs, one at a time."""

    def __init__(self, server: ApiServer) -> None:
        self.server, self.observer = server, NodeObserver()

    async def ours(self, name: str, *, reused: bool = False, seed: int = 42) -> Chain:
        """Measure a run of the operator."""
        spec = {"dataset": {"uri": "org/chat"}, "training": {"seed": seed}, "storage": {"claimName": CLAIM}}
        metadata = {"name": name, "namespace": NAMESPACE}
        manifest = {"apiVersion": FINETUNERUN.api_version, "kind": "FineTuneRun", "metadata": metadata, "spec": spec}
        began = time.time()
        await self.server.create(manifest)
        await self.observer.until(lambda: name in self.observer.runs and self.observer.runs[name].finished is not None)
        status = self.observer.runs[name].status
        stages = {stage["name"]: stage for stage in status["stages"]}
        if status["phase"] != "Succeeded" or (reused and not all(stages[one].get("reused") for group in ORDER for one in group)):
            raise SystemExit(f"run {name}: did not end as expected: {status['phase']}, {status['stages']}")
        return await self._measured(name, began)

    async def pattern(self, name: str) -> BarePods:
        """Return the pods for bare runs, from a run that reused every result."""
        await self.ours(name, reused=True)
        return await BarePods.of(self.server, await self.server.get(FINETUNERUN, NAMESPACE, name))

    async def bare(self, pods: BarePods, name: str) -> Chain:
        """Measure the same pods without the operator."""
        return await self._measured(name, await pods.run(self.observer, name, ORDER))

    async def _measured(self, name: str, began: float) -> Chain:
        await self.observer.until(lambda: seen_whole(self.observer, name))
        await asyncio.sleep(_SETTLED_SECONDS)
        return chain(self.observer, name, began)


@contextlib.contextmanager
def _deployed() -> Iterator[NodeCluster]:
    """Start a separate node with the operator, a hub, and a claim that all runs share."""
    archives, generation = _archives(), GENERATIONS["2.1"]
    folder = Path(tempfile.mkdtemp(prefix="finetune-bench-"))
    plane = NodeCluster(folder / "node")
    try:
        _train(folder / "tiny")
        with plane.locked():
            plane.up(build(generation), generation)
        for archive in archives:
            plane.provide(archive)
        with plane.api() as api:
            api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            eventually(lambda: api.get("v1", "ServiceAccount", "default", NAMESPACE) != {}, "the namespace has a ServiceAccount")
            spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "20Gi"}}}
            claim = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": CLAIM, "namespace": NAMESPACE},
                "spec": spec,
            }
            api.create(claim)
            site = folder / "site"
            site.mkdir()
            with deployed_at(plane, api, NAMESPACE, site, folder / "tiny"):
                yield plane
    finally:
        plane.down()
        shutil.rmtree(folder, ignore_errors=True)


def _train(target: Path) -> None:
    """Make the tiny model of the tests in another process, so that this one does not import torch."""
    text = (
        "import sys; from pathlib import Path; import pydocs; from base_model import TINY, train_base_model;"
        "train_base_model(Path(sys.argv[1]), pydocs.rows('purpose', 300), size=TINY)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "hack/example"), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", text, target], env=environment, check=True, capture_output=True)


def _operator_seconds(plane: NodeCluster) -> float:
    """Return the processor time of the operator's processes on this node, in seconds."""
    seconds = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            ours = b"finetune_operator" in (process / "cmdline").read_bytes()
            if ours and plane.network.interface in (process / "cgroup").read_text():
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def _archives() -> list[Path]:
    """Return the archives of the images of operator and stages."""
    if given := os.environ.get("FINETUNE_IMAGES"):
        return [Path(one) for one in given.split(os.pathsep)]
    command: list[str | Path] = [sys.executable, ROOT / "hack/images", "build", "operator", "stages", "--base", "debian"]
    return [Path(line) for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()]


if __name__ == "__main__":
    main()
