"""Lists read page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from finetune_operator.api.kinds import FINETUNERUN, Kind

from .cluster import PAGE, Cluster, Object, Page

_RUNS_PER_PAGE = 100
"""Runs are large because of their status, and parsing a page blocks the event loop."""


async def list_pages(
    cluster: Cluster,
    kind: Kind,
    namespace: str | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    fields: Mapping[str, str] | None = None,
    limit: int = PAGE,
) -> AsyncIterator[Page]:
    """Yield the pages of a list; arguments and errors as in :meth:`.cluster.Cluster.list`."""
    continue_ = None
    while True:
        page = await cluster.list(kind, namespace, labels=labels, fields=fields, limit=limit, continue_=continue_)
        yield page
        continue_ = page.continue_
        if not continue_:
            return


async def list_all(
    cluster: Cluster,
    kind: Kind,
    namespace: str | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    fields: Mapping[str, str] | None = None,
    limit: int = PAGE,
) -> AsyncIterator[Object]:
    """Yield the objects of a list; arguments and errors as in :meth:`.cluster.Cluster.list`."""
    async for page in list_pages(cluster, kind, namespace, labels=labels, fields=fields, limit=limit):
        for item in page.items:
            yield item


async def list_runs(cluster: Cluster, namespaces: Sequence[str] = ()) -> AsyncIterator[Object]:
    """Yield the FineTuneRuns of ``namespaces``, or of all namespaces if there are none."""
    for namespace in namespaces or (None,):
        async for document in list_all(cluster, FINETUNERUN, namespace, limit=_RUNS_PER_PAGE):
            yield document
