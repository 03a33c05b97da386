"""``finetune get``: a line for each run, once or on every change."""

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

from . import exit_status
from .backend import Backend
from .backend_selection import find_backend
from .display import is_stopped
from .echo import echo
from .errors import NoRuns, handle_errors
from .follow import watch_runs
from .objects import find_run
from .options import Target
from .output import as_list, print_name, print_object
from .table import RunTable
from .terminal import console


class Printer(Protocol):
    """Prints runs in one output format."""

    def print(self, documents: Sequence[Object]) -> None:
        """Print the existing runs."""
        ...

    def add(self, document: Object) -> None:
        """Print a new or changed run."""
        ...

    def fingerprint(self, document: Object) -> object:
        """Return the printed content, to detect changes."""
        ...


@dataclass(frozen=True)
class ObjectPrinter:
    """Prints names or objects; with ``one``, a single object instead of a list."""

    form: str
    one: bool = False

    def print(self, documents: Sequence[Object]) -> None:
        """See :class:`Printer`."""
        if self.form == "name":
            for document in documents:
                print_name(document)
        else:
            print_object(documents[0] if self.one else as_list(list(documents)), self.form)
        sys.stdout.flush()

    def add(self, document: Object) -> None:
        """See :class:`Printer`."""
        if self.form == "yaml":
            echo("---")
        ObjectPrinter(self.form, one=True).print([document])

    def fingerprint(self, document: Object) -> object:
        """See :class:`Printer`."""
        return document["metadata"]["name" if self.form == "name" else "resourceVersion"]


@dataclass(frozen=True)
class RunFilter:
    """Selects runs by name and experiment."""

    name: str | None = None
    experiment: str | None = None

    def matches(self, document: Object) -> bool:
        """Return whether a run is selected."""
        run = Run.parse(document)
        return self.name in (None, run.name) and self.experiment in (None, run.experiment)


def get_runs(target: Target, run_filter: RunFilter, output: str | None, *, watch: bool) -> int:
    """Print one run or all; with ``watch``, also every change until Ctrl-C."""

    def command() -> int:
        backend = find_backend(target)
        as_objects = output is not None and output != "wide"
        printer: Printer = (
            ObjectPrinter(str(output), one=run_filter.name is not None)
            if as_objects
            else RunTable(console(), output == "wide", target.all_namespaces, lambda: backend.is_driven)
        )
        namespace = None if target.all_namespaces else backend.namespace
        try:
            return asyncio.run(_get(backend, namespace, run_filter, printer, watch=watch, as_objects=as_objects))
        except NoRuns:
            if run_filter.name or watch:
                raise
            return _show(backend, run_filter, [], printer, as_objects=as_objects)

    return handle_errors(command)


async def _get(
    backend: Backend, namespace: str | None, run_filter: RunFilter, printer: Printer, *, watch: bool, as_objects: bool
) -> int:
    async with backend.connect() as cluster:
        if run_filter.name and namespace:
            found = [await find_run(backend, cluster, run_filter.name)]
        else:
            found = [document async for document in list_all(cluster, FINETUNERUN, namespace)]
        found = sorted(
            filter(run_filter.matches, found), key=lambda document: str(document["metadata"].get("creationTimestamp", ""))
        )
        code = _show(backend, run_filter, found, printer, as_objects=as_objects and not watch)
        if watch:
            await _watch_runs(cluster, namespace, run_filter, found, printer)
    return code


def _show(backend: Backend, run_filter: RunFilter, found: Sequence[Object], printer: Printer, *, as_objects: bool) -> int:
    if found or as_objects:
        printer.print(found)
    else:
        which = f" of experiment {run_filter.experiment}" if run_filter.experiment else ""
        named = f"no run {run_filter.name}" if run_filter.name else f"no runs{which}"
        echo(f"{backend.description}: {named}; create a file for one with: finetune init", err=True)
    if not as_objects and not backend.is_driven:
        _print_stopped([run for run in map(Run.parse, found) if is_stopped(run)], backend.flags)
    return exit_status.NO_INPUT if run_filter.name and not found else exit_status.OK


def _print_stopped(runs: Sequence[Run], flags: str) -> None:
    """Print how to continue runs that no process works on."""
    names = ", ".join(run.name for run in runs)
    if runs:
        which = runs[0].name if len(runs) == 1 else "NAME"
        echo(f"{names}: stopped, no process works on it; continue it with: finetune resume {which}{flags}", err=True)


async def _watch_runs(
    cluster: Cluster, namespace: str | None, run_filter: RunFilter, found: Sequence[Object], printer: Printer
) -> None:
    """Print every change; the first printed run gets a header."""
    printed = {document["metadata"]["uid"]: printer.fingerprint(document) for document in found}
    has_header = bool(found)
    async with aclosing(watch_runs(cluster, namespace)) as changes:
        async for change in changes:
            document, uid = change.object, change.object["metadata"]["uid"]
            if not run_filter.matches(document):
                continue
            if change.type == "DELETED":
                printed.pop(uid, None)
                echo(f"{document['metadata']['name']}: the run was deleted.", err=True)
            elif printed.get(uid) != printer.fingerprint(document):
                (printer.add(document) if has_header else printer.print([document]))
                printed[uid], has_header = printer.fingerprint(document), True
