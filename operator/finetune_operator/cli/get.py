"""``finetune get``: the runs of a folder, a line each."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from finetune_operator.api.kinds import FINETUNERUN
from finetune_operator.core.conditions import short_duration
from finetune_operator.core.run import Run
from finetune_operator.core.times import moment
from finetune_operator.local.home import Home
from finetune_operator.local.platform import NAMESPACE, open_store
from finetune_operator.loop.cluster import Object
from finetune_operator.loop.controller import runs
from finetune_operator.loop.errors import NotFound

from . import exitcodes
from .display import PHASE_STYLES
from .output import listed, print_object
from .terminal import console


def get_runs(home: Path | None, name: str | None, experiment: str | None, output: str | None) -> int:
    """Print one run or all."""
    try:
        found = asyncio.run(load_runs(Home.find(home), name))
    except NotFound:
        print(unknown_run(Home.find(home), str(name)), file=sys.stderr)
        return exitcodes.NO_INPUT
    if experiment:
        found = [document for document in found if Run.parse(document).experiment == experiment]
    if output:
        print_object(found[0] if name else listed(found), output)
    elif found:
        console().print(_table(found))
    else:
        print("No runs here. Write one with: finetune init", file=sys.stderr)
    return exitcodes.OK


async def load_runs(home: Home, name: str | None) -> list[Object]:
    """The run of a name, or all, oldest first.

    Raises:
        NotFound: there is no run of that name.
    """
    if not home.exists:
        if name:
            raise NotFound(name)
        return []
    store = open_store(home)
    try:
        if name:
            return [await store.get(FINETUNERUN, NAMESPACE, name)]
        found = [document async for document in runs(store, NAMESPACE)]
        return sorted(found, key=lambda document: str(document["metadata"].get("creationTimestamp", "")))
    finally:
        store.close()


def unknown_run(home: Home, name: str) -> str:
    """The sentence for a name that no run has."""
    return f"{name}: there is no run of that name in {home.root}; finetune get lists them."


def _table(found: list[Object]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("NAME", "PHASE", "PROGRESS", "LOSS", "SCORE", "MODEL", "AGE"):
        table.add_column(column, no_wrap=True)
    for document in found:
        run, summary = Run.parse(document), (document.get("status") or {}).get("summary") or {}
        phase = str(run.status.get("phase", "Pending"))
        table.add_row(
            run.name, f"[{PHASE_STYLES.get(phase, 'cyan')}]{phase}[/]", summary.get("progress", ""), summary.get("loss", ""),
            summary.get("score", ""), summary.get("model", ""), _age(document),
        )  # fmt: skip
    return table


def _age(document: Object) -> str:
    created = document["metadata"].get("creationTimestamp")
    return short_duration((datetime.now(UTC) - moment(created)).total_seconds()) if created else ""
