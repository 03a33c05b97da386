"""``finetune get``: the runs of a folder, a line each."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table
from rich.text import Text

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

_SCORES = 4
"""Scores in the table: more do not fit beside each other."""


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
    runs_ = [Run.parse(document) for document in found]
    scores = main_scores(runs_)
    for column in ("NAME", "ALGORITHM", "PHASE", "PROGRESS", "LOSS", *scores, "MODEL", "AGE"):
        table.add_column(column, no_wrap=True, justify="right" if column in scores else "left")
    for run, document in zip(runs_, found, strict=True):
        summary = run.status.get("summary") or {}
        phase = str(run.status.get("phase", "Pending"))
        table.add_row(
            run.name, summary.get("algorithm", ""), Text(phase, style=PHASE_STYLES.get(phase, "cyan")),
            summary.get("progress", ""), summary.get("loss", ""), *(_before_and_after(run, score) for score in scores),
            summary.get("model", ""), _age(document),
        )  # fmt: skip
    return table


def main_scores(found: Sequence[Run]) -> list[str]:
    """The scores to compare runs by: those that their gates name, then the first of each task, a few at the most."""
    names: dict[str, None] = {}
    for run in found:
        for requirement in (run.resolved.get("gate") or {}).get("requirements") or ():
            names[requirement["metric"]] = None
    for run in found:
        for name in (run.status.get("metrics") or {}).get("evaluation") or {}:
            task = name.partition(".")[0]
            if "." in name and not name.endswith("_stderr") and not any(known.partition(".")[0] == task for known in names):
                names[name] = None
    return list(names)[:_SCORES]


def _before_and_after(run: Run, score: str) -> str:
    metrics = run.status.get("metrics") or {}
    before, after = ((metrics.get(group) or {}).get(score) for group in ("baseline", "evaluation"))
    if after is None:
        return ""
    return f"{after:.4g}" if before is None else f"{before:.4g} → {after:.4g}"


def _age(document: Object) -> str:
    created = document["metadata"].get("creationTimestamp")
    return short_duration((datetime.now(UTC) - moment(created)).total_seconds()) if created else ""
