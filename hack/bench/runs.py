"""FineTuneRuns for benchmarks, applied as fast as possible or at a steady rate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from kubernetes_cluster import SPEC

from finetune_operator.kube.client import ApiServer

Object = dict[str, Any]
_AT_ONCE = 16


async def applied(
    server: ApiServer, namespace: str, runs: int, rate: float = 0.0, slots: asyncio.Semaphore | None = None
) -> AsyncIterator[Object]:
    """Create runs, and yield each as the API server stored it.

    Args:
        server: where.
        namespace: where.
        runs: how many.
        rate: how many a second, at most; 0 means as fast as can be.
        slots: one is taken for each run.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    group = _AT_ONCE if not rate and slots is None else 1
    for first in range(0, runs, group):
        names = [f"run-{number:05d}" for number in range(first, min(first + group, runs))]
        if slots is not None:
            await slots.acquire()
        if rate:
            await asyncio.sleep(max(0.0, began + first / rate - loop.time()))
        for document in await asyncio.gather(*(server.create(_run(namespace, name)) for name in names)):
            yield document


def _run(namespace: str, name: str) -> Object:
    return {
        "apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": {"name": name, "namespace": namespace}, "spec": SPEC,
    }  # fmt: skip
