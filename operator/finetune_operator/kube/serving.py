"""Health probes and metrics of the operator."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import get_args

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from finetune_operator.loop.controller import ErrorSource

STALE_SECONDS = 600.0
"""Time without a successful list of runs after which the liveness probe fails."""


class Health:
    """State of the operator for its probes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._listed = clock()
        self.ready = False
        """Whether the operator has started, as leader or as standby."""
        self.leads = False

    def observe_list(self) -> None:
        """Record that the API server has just returned a list of all runs."""
        self._listed = self._clock()

    @property
    def alive(self) -> bool:
        """Whether the API server responds. A standby replica makes no calls that could prove it."""
        return not self.leads or self._clock() - self._listed < STALE_SECONDS


class Metrics:
    """Metrics of the operator, in a separate registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Histogram(
            "finetune_reconcile_seconds", "Duration of a reconciliation of one run.", registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )  # fmt: skip
        self.transitions = Counter("finetune_transitions", "Transitions of runs, by reason.", ["reason"], registry=self.registry)
        self.errors = Counter(
            "finetune_errors",
            "Unexpected exceptions in the operator, by source.",
            ["source"],
            registry=self.registry,
        )
        for source in get_args(ErrorSource):
            self.errors.labels(source)  # an alert can only see the increase of an existing series
        self.leader = Gauge("finetune_leader", "1 in the active replica.", registry=self.registry)
        self.depth = Gauge("finetune_queue_depth", "Runs in the work queue.", registry=self.registry)
        self.runs = Gauge("finetune_runs", "Runs by phase, as of the last list.", ["phase"], registry=self.registry)

    def text(self) -> bytes:
        """Return the metrics in the exposition format."""
        return generate_latest(self.registry)


@contextlib.asynccontextmanager
async def serving(health: Health, metrics: Metrics, host: str, port: int) -> AsyncIterator[int]:
    """Serve ``/healthz``, ``/readyz`` and ``/metrics`` inside the context, and hand out the port."""
    app = web.Application()

    async def healthz(_request: web.Request) -> web.Response:
        return _response(health.alive, "no list of runs succeeded in the last ten minutes")

    async def readyz(_request: web.Request) -> web.Response:
        return _response(health.ready, "not started yet")

    async def expose(_request: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", expose)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _response(healthy: bool, problem: str) -> web.Response:
    return web.Response(text="ok\n") if healthy else web.Response(text=problem + "\n", status=503)
