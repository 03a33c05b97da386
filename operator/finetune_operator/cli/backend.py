"""Where the runs of a command are: a folder of this machine, or a namespace of a cluster.

The options decide: ``--context``, ``--kubeconfig``, ``-n`` and ``-A`` mean a cluster, and so does the variable
``FINETUNE_CONTEXT``; else it is the folder of ``--home``. An option counts more than a variable.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from finetune_contract.workspace import Attempt
from finetune_operator.core.run import Run
from finetune_operator.local.home import HOME_VARIABLE
from finetune_operator.loop.cluster import Cluster, Object

from . import exitcodes
from .documents import Document
from .errors import CommandError

CONTEXT_VARIABLE = "FINETUNE_CONTEXT"

MutateFn = Callable[[Cluster], Awaitable[Object]]
"""Makes or changes a run, and answers with it."""


@dataclass(frozen=True)
class Target:
    """What the options of a command say."""

    home: Path | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None
    everywhere: bool = False

    @property
    def cluster_options(self) -> list[str]:
        """The options that were given and mean a cluster."""
        given = {
            "--context": self.context, "--kubeconfig": self.kubeconfig, "--namespace": self.namespace,
            "--all-namespaces": self.everywhere or None,
        }  # fmt: skip
        return [option for option, value in given.items() if value is not None]


@dataclass(frozen=True)
class RunOptions:
    """How the commands that follow a run speak, and what secrets they bring."""

    secrets: tuple[str, ...] = ()
    plain: bool = False
    output: str | None = None
    wait: bool = False
    """Whether the command follows the run where somebody else does the work."""
    suspends: bool = False
    """Whether the command asks for the suspension: it succeeds once the run is suspended."""


class Backend(Protocol):
    """Where runs are. Every method may raise :class:`~.rejection.CommandError`."""

    @property
    def words(self) -> str:
        """How a sentence calls it: a folder's path, or ``namespace a of context b``."""
        ...

    @property
    def flags(self) -> str:
        """The options by which another command finds it, with a space before them; empty where it needs none."""
        ...

    @property
    def namespace(self) -> str:
        """Where its runs are, in the cluster that :meth:`opened` gives."""
        ...

    def opened(self) -> AbstractAsyncContextManager[Cluster]:
        """The objects, to look at and to change."""
        ...

    def validate(self, document: Document, base: Path) -> list[str]:
        """What is wrong with a run before it goes there: a line for each problem. Relative paths count from ``base``."""
        ...

    def placed(self, manifest: Object, base: Path) -> Object:
        """A manifest as it goes there; relative local paths count from ``base``."""
        ...

    async def require(self, cluster: Cluster, manifest: Object) -> None:
        """Refuse a run whose needs nobody will bring later."""
        ...

    def start(self, change: MutateFn, options: RunOptions, *, follow: bool) -> int:
        """Make a run and see to it; ``follow`` to its end where somebody else does the work. The exit code."""
        ...

    def update(self, change: MutateFn, said: str, options: RunOptions) -> int:
        """Change a run and see to what follows; where that is somebody else's work, wait for it or say so. The exit code."""
        ...

    async def delete(self, name: str, *, purge: bool) -> str:
        """Delete a run and, with ``purge``, its files: what a user should know afterwards."""
        ...

    def kept_log(self, run: Run, stage: str, attempt: Attempt, rank: int) -> Path | str:
        """The log that outlives its pod: a file that can be read here, or a sentence on where it lies."""
        ...


def find_backend(where: Target) -> Backend:
    """The place that options and environment mean.

    Raises:
        CommandError: they contradict each other, or there is no such cluster.
    """
    given, variable = where.cluster_options, os.environ.get(CONTEXT_VARIABLE)
    if where.home is not None and given:
        raise CommandError(
            [f"--home means a folder of this machine and {given[0]} a cluster: give one of them."], exitcodes.USAGE
        )
    if where.everywhere and where.namespace:
        raise CommandError(["--namespace means one namespace and --all-namespaces all: give one of them."], exitcodes.USAGE)
    if where.home is None and not given and variable and os.environ.get(HOME_VARIABLE):
        words = f"{HOME_VARIABLE} means a folder of this machine and {CONTEXT_VARIABLE} a cluster"
        raise CommandError([f"{words}: say which with --home or --context."], exitcodes.USAGE)
    if given or (variable and where.home is None):
        from .cluster_backend import ClusterBackend

        return ClusterBackend.find(where if where.context or where.kubeconfig else replace(where, context=variable))
    from .local_backend import LocalBackend

    return LocalBackend.find(where.home)
