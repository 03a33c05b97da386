"""The calls that the operator makes to Kubernetes: a protocol with two implementations.

:mod:`finetune_operator.kube` implements it for an API server, :mod:`finetune_operator.local` for the embedded store. The tests in
``tests/contract`` verify that both behave alike. Objects are plain JSON documents, so that unknown fields are preserved.
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
"""Default number of objects in a page of a list."""
DEADLINE = 30.0
"""Seconds after which a call other than a watch raises ``Timeout``."""


@dataclass(frozen=True)
class Page:
    """A part of a list. ``continue_`` requests the next part; a watch can continue from ``resource_version``."""

    items: list[Object]
    resource_version: str
    continue_: str | None = None


@dataclass(frozen=True)
class WatchEvent:
    """An event of a watch. A bookmark has only the version from which the watch can continue."""

    type: EventType | Literal["BOOKMARK"]
    object: Object


class Cluster(Protocol):
    """The calls. Each can raise any error of :mod:`.errors`, and each except watches and followed logs ends within :data:`DEADLINE`."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """Return an object. Raises ``NotFound``."""
        ...

    async def get_metadata(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """Return only the ``metadata`` of an object, for large objects that only have to exist. Raises ``NotFound``."""
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
        """Return a page of the objects of a namespace, or of all namespaces, with all ``labels`` and ``fields``. Raises ``Gone``.

        Fields are named by their paths. Objects can be selected by name and namespace, and Events also by ``type``, ``reason`` and
        the fields of ``involvedObject``.
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
        """Yield the changes after ``resource_version``; without it, the present objects as ADDED and then changes. Raises ``Gone``."""
        ...

    async def create(self, manifest: Object, *, dry_run: bool = False) -> Object:
        """Create an object and return it. Unknown fields are rejected. With ``dry_run`` it is validated and not stored.

        Raises ``AlreadyExists`` and ``Invalid``.
        """
        ...

    async def patch(self, kind: Kind, namespace: str | None, name: str, patch: Object) -> Object:
        """Merge-patch (RFC 7396) everything except status, and return the object. ``metadata.resourceVersion`` requires that version."""
        ...

    async def patch_status(self, kind: Kind, namespace: str | None, name: str, patch: Object) -> Object:
        """Merge-patch only ``status``, through the subresource, and return the object. Versions as in :meth:`patch`."""
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
        """Delete an object and its dependents; with another ``uid``, raise ``Conflict``. Raises ``NotFound``."""
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
        """Return the log of a container, or its end. Raises ``NotFound``, and ``Invalid`` if the container has not started."""
        ...

    def follow_log(self, namespace: str, pod: str, *, container: str | None = None) -> AsyncGenerator[bytes, None]:
        """Yield the log of a container from its beginning as it is written, until the container or the connection ends.

        Raises as :meth:`pod_log` does.
        """
        ...
