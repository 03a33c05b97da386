"""Kubernetes as the operator sees it: ten calls, two implementations.

The API server's is in :mod:`finetune_operator.kube`, the embedded store's in :mod:`finetune_operator.local`; one contract suite
(``tests/contract``) holds both to the same behaviour. Objects are plain JSON documents: the operator must carry fields that
it does not know.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from finetune_operator.api.kinds import Kind

Object = dict[str, Any]
RunKey = tuple[str, str]
"""Namespace and name of a run."""
EventType = Literal["ADDED", "MODIFIED", "DELETED"]
"""The type of a watch event about an object."""
Propagation = Literal["Background", "Foreground", "Orphan"]

PAGE = 500
"""Objects in a page of a list."""
DEADLINE = 30.0
"""Seconds after which a call other than a watch ends with ``Timeout``."""


@dataclass(frozen=True)
class Page:
    """A part of a list. ``continue_`` asks for the next one; ``resource_version`` is where a watch goes on."""

    items: list[Object]
    resource_version: str
    continue_: str | None = None


@dataclass(frozen=True)
class WatchEvent:
    """An event of a watch. A bookmark has only the version from which the watch can continue."""

    type: EventType | Literal["BOOKMARK"]
    object: Object


class Cluster(Protocol):
    """The calls. Each may raise any of :mod:`.errors`; each but ``watch`` ends within :data:`DEADLINE`."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """One object. Raises ``NotFound``."""
        ...

    async def get_metadata(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """One object with nothing but its ``metadata``: for large ones that only have to be there. Raises ``NotFound``."""
        ...

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        limit: int = PAGE,
        continue_: str | None = None,
    ) -> Page:
        """A page of the objects of a namespace (of all, without one) with all ``labels`` and ``fields``. Raises ``Gone``.

        Fields are told by their paths; which ones a kind can be selected by is fixed: an Event by those of ``involvedObject``,
        by ``type`` and ``reason``, everything by its name and namespace.
        """
        ...

    def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        resource_version: str | None = None,
    ) -> AsyncIterator[WatchEvent]:
        """Changes after ``resource_version`` (without one: the present objects as ADDED, then changes). Raises ``Gone``."""
        ...

    async def create(self, manifest: Object, *, dry_run: bool = False) -> Object:
        """A new object. Unknown fields are refused. With ``dry_run`` it is checked and not kept. Raises ``AlreadyExists``, ``Invalid``."""
        ...

    async def patch(self, kind: Kind, namespace: str | None, name: str, patch: Object) -> Object:
        """A merge patch (RFC 7396) of everything but status; with ``metadata.resourceVersion`` only onto that version."""
        ...

    async def patch_status(self, kind: Kind, namespace: str | None, name: str, patch: Object) -> Object:
        """A merge patch of ``status`` alone, through the subresource; versions as in :meth:`patch`."""
        ...

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        propagation: Propagation = "Background",
        grace_seconds: int | None = None,
    ) -> None:
        """Delete an object and what it owns; with ``uid`` only that very one (else ``Conflict``). Raises ``NotFound``."""
        ...

    async def pod_log(
        self,
        namespace: str,
        pod: str,
        *,
        container: str | None = None,
        tail_lines: int | None = None,
        limit_bytes: int | None = None,
    ) -> str:
        """The log of a container, or its end. Raises ``NotFound``, ``Invalid`` while the container has not started."""
        ...

    def follow_log(self, namespace: str, pod: str, *, container: str | None = None) -> AsyncGenerator[bytes, None]:
        """The log of a container from its beginning, piece by piece, as it comes; ends with the container, or with the connection.

        Raises as :meth:`pod_log` does.
        """
        ...
