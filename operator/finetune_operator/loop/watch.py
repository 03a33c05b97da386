"""Watches that do not end: after an interruption, the present objects are listed again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping

from finetune_operator.api.kinds import Kind

from .cluster import Cluster, WatchEvent
from .errors import ApiError, Gone

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 1.0


async def list_watch(
    cluster: Cluster,
    kind: Kind,
    namespace: str | None = None,
    labels: Mapping[str, str] | None = None,
    *,
    on_error: Callable[[Kind, ApiError], None] | None = None,
) -> AsyncGenerator[WatchEvent, None]:
    """Yield the present objects as ADDED, then every change, without bookmarks.

    After an interruption the present objects are yielded as ADDED again. Objects that were deleted in the meantime are not reported.

    Args:
        cluster: what to watch.
        kind: the kind of the objects.
        namespace: their namespace; all namespaces without it.
        labels: labels that they must have.
        on_error: called for each error before the watch is repeated. It may raise the error to end the watch. By default a warning is
            logged.
    """
    while True:
        try:
            async for event in cluster.watch(kind, namespace, labels=labels):
                if event.type != "BOOKMARK":
                    yield event
        except Gone:
            continue
        except ApiError as error:
            (on_error or _log_error)(kind, error)
            await asyncio.sleep(_PAUSE_SECONDS)


def _log_error(kind: Kind, error: ApiError) -> None:
    log.warning("watch of %s failed and is repeated: %s", kind, error)
