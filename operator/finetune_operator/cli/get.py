"""``finetune get``: the runs of a place, a line each, once or for as long as one looks on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from finetune_operator.api.kinds import FINETUNERUN
from finetune_operator.core.run import Run
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.pager import list_all

from . import exitcodes
from .backend import Backend, Target, find_backend
from .errors import NothingThere, guarded
from .follow import watch_runs
from .objects import find_run
from .output import listed, print_name, print_object
from .table import RunTable
from .terminal import console


class Lines(Protocol):
    """What is printed of runs."""

    def print(self, documents: Sequence[Object]) -> None:
        """Those that are there at the beginning."""
        ...

    def add(self, document: Object) -> None:
        """One that is new or has changed since."""
        ...

    def shown(self, document: Object) -> object:
        """What is seen of a run: it has changed when this has."""
        ...


@dataclass(frozen=True)
class ObjectLines:
    """Names, or whole objects for machines; ``one`` for a single run, which is no list."""

    form: str
    one: bool = False

    def print(self, documents: Sequence[Object]) -> None:
        """See :class:`Lines`."""
        if self.form == "name":
            for document in documents:
                print_name(document)
        else:
            print_object(documents[0] if self.one else listed(list(documents)), self.form)
        sys.stdout.flush()

    def add(self, document: Object) -> None:
        """See :class:`Lines`."""
        if self.form == "yaml":
            print("---")
        ObjectLines(self.form, one=True).print([document])

    def shown(self, document: Object) -> object:
        """See :class:`Lines`."""
        return document["metadata"]["name" if self.form == "name" else "resourceVersion"]


@dataclass(frozen=True)
class Wanted:
    """The runs that are asked for."""

    name: str | None = None
    experiment: str | None = None

    def admits(self, document: Object) -> bool:
        """Whether a run is one of them."""
        run = Run.parse(document)
        return self.name in (None, run.name) and self.experiment in (None, run.experiment)


def get_runs(where: Target, wanted: Wanted, output: str | None, *, watch: bool) -> int:
    """Print one run or all; with ``watch`` also what becomes of them, until Ctrl-C."""

    def command() -> int:
        backend = find_backend(where)
        machine = output is not None and output != "wide"
        lines: Lines = (
            ObjectLines(str(output), one=wanted.name is not None)
            if machine
            else RunTable(console(), wide=output == "wide", namespaces=where.everywhere)
        )
        namespace = None if where.everywhere else backend.namespace
        try:
            return asyncio.run(_get(backend, namespace, wanted, lines, watch=watch, machine=machine))
        except NothingThere:
            if wanted.name or watch:
                raise
            return _show(backend, wanted, [], lines, machine=machine)

    return guarded(command)


async def _get(backend: Backend, namespace: str | None, wanted: Wanted, lines: Lines, *, watch: bool, machine: bool) -> int:
    async with backend.opened() as cluster:
        if wanted.name and namespace:
            found = [await find_run(backend, cluster, wanted.name)]
        else:
            found = [document async for document in list_all(cluster, FINETUNERUN, namespace)]
        found = sorted(filter(wanted.admits, found), key=lambda document: str(document["metadata"].get("creationTimestamp", "")))
        code = _show(backend, wanted, found, lines, machine=machine and not watch)
        if watch:
            await _look_on(cluster, namespace, wanted, found, lines)
    return code


def _show(backend: Backend, wanted: Wanted, found: Sequence[Object], lines: Lines, *, machine: bool) -> int:
    if found or machine:
        lines.print(found)
    else:
        which = f" of experiment {wanted.experiment}" if wanted.experiment else f" {wanted.name}" if wanted.name else ""
        print(f"No runs{which} in {backend.words}. Write one with: finetune init", file=sys.stderr)
    return exitcodes.NO_INPUT if wanted.name and not found else exitcodes.OK


async def _look_on(cluster: Cluster, namespace: str | None, wanted: Wanted, found: Sequence[Object], lines: Lines) -> None:
    """Print every change; the first run that comes gets the head, if there was none before."""
    shown = {document["metadata"]["uid"]: lines.shown(document) for document in found}
    begun = bool(found)
    async with aclosing(watch_runs(cluster, namespace)) as changes:
        async for change in changes:
            document, uid = change.object, change.object["metadata"]["uid"]
            if not wanted.admits(document):
                continue
            if change.type == "DELETED":
                shown.pop(uid, None)
                print(f"{document['metadata']['name']}: was deleted.", file=sys.stderr)
            elif shown.get(uid) != lines.shown(document):
                (lines.add(document) if begun else lines.print([document]))
                shown[uid], begun = lines.shown(document), True
