"""The process of the operator: it waits until it is the leader, then runs the control loop until a signal stops it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass

import aiohttp

from finetune_operator.api.kinds import FINETUNERUN, TRAINJOB, Kind
from finetune_operator.core.settings import Trainer
from finetune_operator.loop.controller import WORKLOAD_KINDS, Controller
from finetune_operator.loop.errors import ApiError
from finetune_operator.loop.pager import list_runs

from .client import ApiServer
from .configuration import Configuration
from .credentials import Credentials
from .discovery import detect_trainer, is_served, require_own_kind
from .lease import Lease
from .reconcile_observer import ReconcileObserver
from .serving import Health, Metrics, serving
from .settings_provider import SettingsProvider
from .source import watch_events

log = logging.getLogger(__name__)

PROBE_SECONDS = 60.0
"""Seconds between two checks of the kinds that the cluster serves."""
LEASE_NAME = "finetune-operator"
_STOP_SECONDS = 10.0
"""Seconds for which the end of a task is awaited."""


@dataclass(frozen=True)
class Wiring:
    """The API server, the configuration and the options of the operator's process."""

    credentials: Credentials
    configuration: Configuration
    host: str = ""
    port: int = 8080
    probe_seconds: float = PROBE_SECONDS
    lease: bool = True


async def operate(wiring: Wiring) -> None:
    """Run the operator until SIGTERM or SIGINT.

    Raises:
        NotFound: FineTuneRun is not installed in the cluster.
        LeaseLost: another replica may be active. The process must end.
        Exception: the watches of kopf failed permanently. The process must end and be restarted.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    health, metrics = Health(), Metrics()
    async with aiohttp.ClientSession() as session, serving(health, metrics, wiring.host, wiring.port) as port:
        log.info("serving health and metrics on port %d", port)
        credentials = wiring.credentials
        server = ApiServer(session, credentials.address, token=credentials.token, tls=credentials.tls())
        await require_own_kind(server)
        health.ready = True
        operator = _Operator(wiring, server, health, metrics, stop)
        if wiring.lease:
            lease = Lease(server, credentials.namespace, LEASE_NAME, f"{socket.gethostname()}-{os.getpid()}")
            await _until_stopped(_lead_with_lease(lease, operator), stop, health)
        else:
            await operator.lead()


async def _lead_with_lease(lease: Lease, operator: _Operator) -> None:
    async with lease.held() as renewing:
        leading = asyncio.create_task(operator.lead())
        await asyncio.wait((renewing, leading), return_when=asyncio.FIRST_COMPLETED)
        if renewing.done():
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)
            renewing.result()  # raises LeaseLost
        leading.result()


async def _until_stopped(work: Coroutine[None, None, None], stop: asyncio.Event, health: Health) -> None:
    """Run ``work`` until it ends. A signal cancels a standby replica at once; the leader ends by itself within seconds."""
    working, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
    if health.leads:
        await asyncio.wait((working,), timeout=_STOP_SECONDS)
    stopped.cancel()
    if working.done():
        working.result()
    else:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


@dataclass
class _Operator:
    """The control loop of the leader."""

    wiring: Wiring
    server: ApiServer
    health: Health
    metrics: Metrics
    stop: asyncio.Event

    async def lead(self) -> None:
        """Run the control loop until it is stopped. When the cluster serves other kinds, the watches are started again."""
        configuration = self.wiring.configuration
        settings_provider = SettingsProvider(self.server, configuration)
        controller = Controller(
            self.server,
            settings_provider.settings,
            configuration.namespaces,
            observer=ReconcileObserver(self.metrics),
            on_error=lambda source: self.metrics.errors.labels(source).inc(),
            resync_seconds=configuration.resync_seconds,
        )
        self.health.leads = True
        self.health.observe_list()
        self.metrics.leader.set(1)
        self.metrics.depth.set_function(lambda: len(controller.queue))
        try:
            async with controller.running(configuration.workers, watching=False):
                counting = asyncio.create_task(self._count_runs())
                while not self.stop.is_set():
                    await self._watch(settings_provider, controller)
                counting.cancel()
        finally:
            self.health.leads = False
            self.metrics.leader.set(0)

    async def _watch(self, settings_provider: SettingsProvider, controller: Controller) -> None:
        """Run the watches of kopf until the served kinds change or the operator stops."""
        kinds, trainer = await self._served()
        settings_provider.set_trainer(trainer)
        log.info("watching %s; Trainer: %s", ", ".join(map(str, kinds)), trainer.overrides if trainer else "none")
        ended = asyncio.Event()
        watching = asyncio.create_task(
            watch_events(kinds, controller.on_event, self.wiring.credentials, self.wiring.configuration.namespaces, ended)
        )
        changed = asyncio.create_task(self._changed(kinds, trainer))
        stopped = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait((watching, changed, stopped), return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
                self.stop.set()  # kopf handles signals itself, and returns
        finally:
            ended.set()
            changed.cancel()
            stopped.cancel()
            await asyncio.wait((watching,), timeout=_STOP_SECONDS)
            watching.cancel()

    async def _served(self) -> tuple[Sequence[Kind], Trainer | None]:
        has_trainer = await is_served(self.server, TRAINJOB)
        kinds = [FINETUNERUN, *(kind for kind in WORKLOAD_KINDS if kind is not TRAINJOB or has_trainer)]
        return kinds, await detect_trainer(self.server)

    async def _changed(self, kinds: Sequence[Kind], trainer: Trainer | None) -> None:
        """Wait until the cluster serves other kinds or another Trainer than ``kinds`` and ``trainer``."""
        while True:
            await asyncio.sleep(self.wiring.probe_seconds)
            try:
                if await self._served() != (kinds, trainer):
                    return
            except ApiError as error:
                log.warning("discovery of the served kinds failed: %s", error)

    async def _count_runs(self) -> None:
        """Update the metric of runs by phase at regular intervals. Each successful list also proves that the API server responds."""
        while True:
            try:
                phases = await self._phases()
            except ApiError as error:
                log.warning("the list of runs failed: %s", error)
            except Exception:
                log.exception("counting the runs raised an exception")
                self.metrics.errors.labels("task").inc()
            else:
                self.health.observe_list()
                self.metrics.runs.clear()
                for phase, count in phases.items():
                    self.metrics.runs.labels(phase).set(count)
            await asyncio.sleep(self.wiring.probe_seconds)

    async def _phases(self) -> Counter[str]:
        documents = list_runs(self.server, self.wiring.configuration.namespaces)
        return Counter([str((run.get("status") or {}).get("phase", "Pending")) async for run in documents])
