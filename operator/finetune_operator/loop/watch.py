"""Watches that never end: one that breaks is begun again, and what was missed meanwhile is told as ADDED."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping

from finetune_operator.api.kinds import Kind

from .cluster import Cluster, WatchEvent
from .errors import ApiError, Gone

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0


async def changes(
    cluster: Cluster, kind: Kind, namespace: str | None = None, labels: Mapping[str, str] | None = None
) -> AsyncGenerator[WatchEvent, None]:
    """Present objects, then every change to them, for ever. Deletions during a break are not told: nothing may rely on them."""
    while True:
        try:
            async for change in cluster.watch(kind, namespace, labels=labels):
                if change.type != "BOOKMARK":
                    yield change
        except Gone:
            continue
        except ApiError as error:
            log.warning("watch of %s: %s", kind, error)
            await asyncio.sleep(_PAUSE_SECONDS)
