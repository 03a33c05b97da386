"""kopf as the source of events, and nothing else: its handlers put the run of whatever changed on the queue.

Only ``on.event`` handlers: nothing is stored on any object, no finalizer, no annotation. This is the one module that knows kopf.
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
from finetune_operator.loop.cluster import Object
from finetune_operator.loop.news import Told

from .credentials import Credentials

log = logging.getLogger(__name__)

_PAGE = 100
"""Objects in a page of a list: runs with their statuses are large."""

Enqueue = Callable[[Kind, Object, Told], None]


class _BackOffs:
    """Pauses after failed calls, about five minutes in all: a control plane that is being upgraded is no crash. Iterable anew."""

    def __iter__(self) -> Iterator[float]:
        for pause in (0.5, 1, 2, 4, 8, 15, 30, 30, 30, 30, 30, 30, 30, 30):
            yield pause * random.uniform(0.75, 1.25)  # noqa: S311 - jitter


async def watch_events(
    kinds: Sequence[Kind], enqueue: Enqueue, credentials: Credentials, namespaces: Sequence[str], stop: asyncio.Event
) -> None:
    """Tell ``enqueue`` of every run and of every child that changes, until ``stop`` is set.

    Args:
        kinds: what is watched: those that the cluster serves.
        enqueue: is told the kind and the object.
        credentials: whom kopf calls as.
        namespaces: where; everywhere, if there is none.
        stop: ends it.

    Raises:
        Exception: kopf cannot go on: a watch that fails for good ends it, and must end the process.
    """
    registry = kopf.OperatorRegistry()
    for kind in kinds:
        _handle(registry, kind, enqueue)
    _log_in(registry, credentials)
    await kopf.operator(
        registry=registry, settings=_settings(kinds), standalone=True, clusterwide=not namespaces, namespaces=list(namespaces),
        stop_flag=stop,
        # Without it kopf asks for the user's name, and a pod's user has none. It is a str; kopf does not export its type.
        identity=socket.gethostname(),  # type: ignore[arg-type]
    )  # fmt: skip


def _handle(registry: kopf.OperatorRegistry, kind: Kind, enqueue: Enqueue) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=f"enqueue-{kind.plural}")
    async def on_event(body: Mapping[str, Any], event: kopf.RawEvent, **_: Any) -> None:
        told = event["type"]
        enqueue(kind, dict(body), None if told == "BOOKMARK" else told)


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
    """Nothing is stored on objects, and nothing is compared: kopf would copy each object for it, which is half of an event's cost."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        return


def _settings(kinds: Sequence[Kind]) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False  # the loop writes its own Events
    settings.watching.chunk_size = _PAGE
    settings.watching.server_timeout, settings.watching.client_timeout = 600, 630
    settings.watching.connect_timeout = settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = _BackOffs()
    settings.queueing.idle_timeout = 0.2  # kopf keeps the last body of each object for that long
    settings.process.ultimate_exiting_timeout = 10
    prefix = FINETUNERUN.group
    settings.persistence.diffbase_storage = _NoDifferences()
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=prefix)
    for kind in kinds:
        if kind is not FINETUNERUN:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
    return settings
