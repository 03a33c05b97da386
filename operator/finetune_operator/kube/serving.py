"""What the operator tells the kubelet and Prometheus: is it alive, is it ready, how is it doing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import get_args

from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from finetune_operator.loop.controller import ErrorSource

STALE_SECONDS = 600.0
"""Without one good list in that time the operator is taken for deaf, and started anew."""


class Health:
    """What is known of the operator's own state."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard = clock()
        self.ready = False
        """Whether it works, or stands by."""
        self.leads = False

    def heard(self) -> None:
        """The API server has just answered a list of all runs."""
        self._heard = self._clock()

    @property
    def alive(self) -> bool:
        """Whether it hears the API server. One that stands by has nothing to hear."""
        return not self.leads or self._clock() - self._heard < STALE_SECONDS


class Metrics:
    """The operator's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Histogram(
            "finetune_reconcile_seconds", "One pass over one run that was carried out.", registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )  # fmt: skip
        self.transitions = Counter(
            "finetune_transitions", "What happened to runs, by reason.", ["reason"], registry=self.registry
        )
        self.errors = Counter(
            "finetune_errors",
            "Unexpected exceptions in the operator, by the part that raised them.",
            ["source"],
            registry=self.registry,
        )
        for source in get_args(ErrorSource):
            self.errors.labels(source)  # an alert sees an increase only of what was there before
        self.leader = Gauge("finetune_leader", "1 in the replica that works.", registry=self.registry)
        self.depth = Gauge("finetune_queue_depth", "Runs that wait to be looked at.", registry=self.registry)
        self.runs = Gauge("finetune_runs", "Runs by phase, as of the last look at all.", ["phase"], registry=self.registry)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


@contextlib.asynccontextmanager
async def serving(health: Health, metrics: Metrics, host: str, port: int) -> AsyncIterator[int]:
    """Serve ``/healthz``, ``/readyz`` and ``/metrics`` inside the context; hands out the port."""
    app = web.Application()

    async def healthz(_request: web.Request) -> web.Response:
        return _answer(health.alive, "no list of runs succeeded in the last ten minutes")

    async def readyz(_request: web.Request) -> web.Response:
        return _answer(health.ready, "not started yet")

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


def _answer(good: bool, otherwise: str) -> web.Response:
    return web.Response(text="ok\n") if good else web.Response(text=otherwise + "\n", status=503)
