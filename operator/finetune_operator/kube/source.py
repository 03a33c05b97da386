"""Watches by kopf, which is used for nothing else: its handlers pass each changed object on.

There are only ``on.event`` handlers, so kopf stores nothing on any object: no finalizer and no annotation. No other module imports kopf.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import kopf

from finetune_operator.api.kinds import FINETUNERUN, Kind
from finetune_operator.core.naming import MANAGED_BY, MANAGED_BY_LABEL
from finetune_operator.loop.cluster import EventType, Object

from .credentials import Credentials

log = logging.getLogger(__name__)

_PAGE = 100
"""Objects per page of a list: runs are large because of their status."""

OnEvent = Callable[[Kind, Object, EventType | None], None]
"""Handles an object that a watch reports; the type is ``None`` for one that was only listed."""


class _BackOffs:
    """Pauses after failed calls, about five minutes in total, so that the operator outlasts an upgrade of the control plane."""

    def __iter__(self) -> Iterator[float]:
        for pause in (0.5, 1, 2, 4, 8, 15, 30, 30, 30, 30, 30, 30, 30, 30):
            yield pause * random.uniform(0.75, 1.25)  # noqa: S311 - jitter


async def watch_events(
    kinds: Sequence[Kind], handle: OnEvent, credentials: Credentials, namespaces: Sequence[str], stop: asyncio.Event
) -> None:
    """Call ``handle`` for every run and every child that changes, until ``stop`` is set.

    Args:
        kinds: the kinds to watch. The cluster must serve them.
        handle: called with each object.
        credentials: the API server, and the identity for it.
        namespaces: the namespaces to watch; all namespaces if there are none.
        stop: ends the watches when it is set.

    Raises:
        Exception: a watch failed permanently. The process must end.
    """
    registry = kopf.OperatorRegistry()
    for kind in kinds:
        _register(registry, kind, handle)
    _log_in(registry, credentials)
    await kopf.operator(
        registry=registry, settings=_settings(kinds), standalone=True, clusterwide=not namespaces, namespaces=list(namespaces),
        stop_flag=stop,
        # By default kopf uses the name of the user, and the user of a pod has none. kopf does not export the type of this str.
        identity=socket.gethostname(),  # type: ignore[arg-type]
    )  # fmt: skip


def _register(registry: kopf.OperatorRegistry, kind: Kind, handle: OnEvent) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=f"on-event-{kind.plural}")
    async def on_event(body: Mapping[str, Any], event: kopf.RawEvent, **_: Any) -> None:
        event_type = event["type"]
        handle(kind, dict(body), None if event_type == "BOOKMARK" else event_type)


def _log_in(registry: kopf.OperatorRegistry, credentials: Credentials) -> None:
    @kopf.on.login(registry=registry, id="credentials")
    async def log_in(**_: Any) -> kopf.ConnectionInfo:
        token = await asyncio.to_thread(credentials.token) if credentials.token else None
        return kopf.ConnectionInfo(
            server=credentials.address, ca_path=credentials.authority, certificate_path=credentials.certificate,
            private_key_path=credentials.key, token=token, insecure=not credentials.verified or None,
            default_namespace=credentials.namespace,
        )  # fmt: skip


class _NoDifferences(kopf.DiffBaseStorage):
    """Storage that stores and compares nothing: kopf would copy each object, which is half of the cost of an event."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        return


def _settings(kinds: Sequence[Kind]) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False  # the control loop writes Events
    settings.watching.chunk_size = _PAGE
    settings.watching.server_timeout, settings.watching.client_timeout = 600, 630
    settings.watching.connect_timeout = settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = _BackOffs()
    settings.queueing.idle_timeout = 0.2  # kopf keeps the last body of each object for this time
    settings.process.ultimate_exiting_timeout = 10
    prefix = FINETUNERUN.group
    settings.persistence.diffbase_storage = _NoDifferences()
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=prefix)
    for kind in kinds:
        if kind is not FINETUNERUN:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
    return settings
