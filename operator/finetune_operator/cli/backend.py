"""The interface that commands have to runs, wherever the runs are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from finetune_contract.workspace import Attempt
from finetune_operator.core.run import Run
from finetune_operator.loop.cluster import Cluster, Object

from .documents import Document
from .options import RunOptions

MutateFn = Callable[[Cluster], Awaitable[Object]]
"""Creates or changes a run, and returns it."""


class Backend(Protocol):
    """A folder of this machine, or a namespace of a cluster. Every method may raise :class:`~.errors.CommandError`."""

    @property
    def description(self) -> str:
        """The name of the backend in messages: the path of a folder, or ``namespace a of context b``."""
        ...

    @property
    def flags(self) -> str:
        """The options that select this backend in another command, with a leading space; empty if it needs none."""
        ...

    @property
    def namespace(self) -> str:
        """The namespace of the runs."""
        ...

    @property
    def is_driven(self) -> bool:
        """Whether a process works on the runs now. Without one, the status of a run that has not ended does not change."""
        ...

    def connect(self) -> AbstractAsyncContextManager[Cluster]:
        """Give access to the objects."""
        ...

    def validate(self, document: Document, base: Path) -> list[str]:
        """Return a line for each problem of a run. Relative paths count from ``base``."""
        ...

    def prepare(self, manifest: Object, base: Path) -> Object:
        """Return a manifest as it is written to the backend. Relative local paths count from ``base``."""
        ...

    async def check_prerequisites(self, cluster: Cluster, manifest: Object) -> None:
        """Reject a run that references a missing object, if no other client can create it later."""
        ...

    async def check_code(self, cluster: Cluster, spec: Mapping[str, Any], new: Sequence[Object] = ()) -> None:
        """Reject a run that brings code to this machine. ``new`` are ConfigMaps that are not written yet."""
        ...

    async def check_rerun(self, cluster: Cluster, spec: Mapping[str, Any]) -> None:
        """Reject the spec of a rerun that cannot start here, if that is known before the spec is written."""
        ...

    def start(self, change: MutateFn, options: RunOptions, *, follow: bool) -> int:
        """Create a run and have it run; with ``follow``, also follow a run that another process drives. Returns the exit code."""
        ...

    def update(self, change: MutateFn, summary: str, options: RunOptions) -> int:
        """Change a run. If another process drives it, follow it (``--wait``) or print ``summary``. Returns the exit code."""
        ...

    async def delete(self, name: str, *, purge: bool) -> str:
        """Delete a run and, with ``purge``, its files. Returns the message for the user."""
        ...

    def archived_log(self, run: Run, stage: str, attempt: Attempt, rank: int) -> Path | str:
        """Return the log that outlives its pod: a readable file, or a message with its location."""
        ...
