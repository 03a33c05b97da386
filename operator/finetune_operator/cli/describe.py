"""``finetune describe``: the details of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from finetune_operator.api.kinds import EVENT
from finetune_operator.core.ended_run import rejected_rerun
from finetune_operator.core.run import Run
from finetune_operator.core.times import moment, short_duration
from finetune_operator.loop.cluster import Object
from finetune_operator.loop.errors import Forbidden
from finetune_operator.loop.pager import list_all

from . import exit_status
from .backend import Backend
from .backend_selection import find_backend
from .display import MARKS, is_stopped, phase_style, phase_text
from .echo import visible_values
from .errors import handle_errors
from .objects import find_run
from .options import Target
from .report import failure_text, print_outcome, score_table
from .rows_view import estimate_values, row_values, sample_lines
from .stages_view import stage_lines
from .terminal import console

_EVENTS = 12
_LARGEST_LOSS = 1e100
"""Points beyond it are not drawn: the range of an axis has to be a finite number."""


def describe_run(target: Target, name: str) -> int:
    """Print the status of a run and its last events."""

    def command() -> int:
        backend = find_backend(target)
        document, events, events_note = asyncio.run(_load(backend, name))
        document, events = visible_values(document), visible_values(events)
        screen, run = console(), Run.parse(document)
        screen.print(_head(run, document, backend))
        for title, content in _parts(run, events, backend.flags):
            screen.print(Text(f"\n{title}", style="bold"))
            screen.print(Padding(content, (0, 0, 0, 2), expand=False))
        if events_note:
            screen.print(f"\n{events_note}", soft_wrap=True)
        if run.ended and not run.status.get("failure"):
            print_outcome(screen, run, scores=False, flags=backend.flags)
        return exit_status.OK

    return handle_errors(command)


async def _load(backend: Backend, name: str) -> tuple[Object, list[Object], str]:
    """Return the run, its events, and a note if the user may not list events."""
    async with backend.connect() as cluster:
        document = await find_run(backend, cluster, name)
        fields = {"involvedObject.uid": document["metadata"]["uid"]}
        try:
            events = [event async for event in list_all(cluster, EVENT, backend.namespace, fields=fields)]
        except Forbidden:
            return document, [], f"events: you may not list events in {backend.description}; ask for the role view."
    return document, sorted(events, key=lambda event: (_time(event), int(event["metadata"]["resourceVersion"]))), ""


def _time(event: Object) -> str:
    """Return the time of the last occurrence; newer clients leave the older fields empty."""
    times = (event.get("lastTimestamp"), event.get("eventTime"), event["metadata"].get("creationTimestamp"))
    return next((str(time) for time in times if time), "")


def _head(run: Run, document: Object, backend: Backend) -> Table:
    status = run.status
    driven = backend.is_driven
    phase = phase_text(run, driven=driven)
    table = Table.grid(padding=(0, 2))
    rows: dict[str, str | Text] = {
        "run": Text(run.name, style="bold"),
        "phase": Text(phase, style=phase_style(phase)),
        "continue with": f"finetune resume {run.name}{backend.flags}" if is_stopped(run) and not driven else "",
        "round": str(run.round) if run.round > 1 else "",
        "where": backend.description,
        "experiment": run.experiment or "",
        "created": str(document["metadata"].get("creationTimestamp", "")),
        "took": short_duration((status.get("usage") or {}).get("wallSeconds", 0)) if run.ended and run.started else "",
        "base model": run.resolved.model.uri if run.started else "",
        "data": run.resolved.dataset.uri if run.started else "",
    }
    for label, value in rows.items():
        if value:
            table.add_row(Text(label, style="dim"), value)
    return table


def _parts(run: Run, events: list[Object], flags: str) -> Iterator[tuple[str, RenderableType]]:
    rejected = rejected_rerun(run)
    if rejected is not None:
        yield "rerun", _stacked([Text(f"{rejected['reason']}: {rejected['message']}", style="yellow")])
    failure = run.status.get("failure")
    if failure:
        lines = [*failure_text(run, failure, flags)]
        if failure.get("logTail"):
            lines.append(Text("\n" + str(failure["logTail"]).strip(), style="dim"))
        yield "failure", _stacked(lines)
    if run.stages:
        yield "stages", _stages(run)
    history = _drawable(run.status.get("history") or [])
    if history:
        yield "training loss (nats per token)", Text.from_ansi(loss_curve(history))
    yield from _data_parts(run)
    warnings = run.status.get("warnings") or []
    if warnings:
        yield "warnings", _stacked([Text(f"{one['stage']}: {one['message']}", style="yellow") for one in warnings])
    scores = score_table(run)
    if scores is not None:
        yield "scores", scores
    yield from _training_parts(run)
    resolved = run.status.get("resolved") or {}
    if resolved.get("adapted"):
        yield "adapted to this machine", _adapted(resolved["adapted"])
    if events:
        yield "events", _events(events[-_EVENTS:])


def _data_parts(run: Run) -> Iterator[tuple[str, RenderableType]]:
    rows = run.status.get("rows") or {}
    if rows:
        yield "rows", _pairs(row_values(rows))
    if run.status.get("estimate"):
        yield "estimate of training", _pairs(estimate_values(run.status["estimate"]))
    if run.status.get("sample"):
        yield "first training rows (+ learned)", _stacked([*sample_lines(run.status["sample"])])


def _training_parts(run: Run) -> Iterator[tuple[str, RenderableType]]:
    engine = run.status.get("engine") or {}
    if engine:
        yield "engine", _engine(engine)
    training = (run.status.get("metrics") or {}).get("training") or {}
    if training:
        yield "training", _pairs({name: f"{value:.6g}" for name, value in sorted(training.items())})


def _stacked(lines: list[RenderableType]) -> Table:
    table = Table.grid()
    for line in lines:
        table.add_row(line)
    return table


def _stages(run: Run) -> Table:
    table = Table.grid(padding=(0, 2))
    for line in stage_lines(run, datetime.now(UTC)):
        stage_status = run.stages[line.name]
        mark, style = MARKS.get(line.state, ("…", "cyan"))
        attempt = f"attempt {stage_status.attempt}" if stage_status.attempt > 1 else ""
        took = "" if line.seconds is None else short_duration(line.seconds)
        table.add_row(
            Text(mark, style=style), line.name, line.state, took, attempt, Text(line.text, style="dim", overflow="fold")
        )
    return table


def _drawable(history: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the points of a loss curve; nothing unless they have two different steps. A program may report any numbers."""
    points = [point for point in history if point["step"] >= 0 and abs(point["loss"]) < _LARGEST_LOSS]
    return points if len({point["step"] for point in points}) > 1 else []


def loss_curve(history: list[Mapping[str, Any]], width: int = 64, height: int = 12) -> str:
    """Return the loss curve as text."""
    import plotille  # only here: 70 ms

    figure = plotille.Figure()
    figure.width, figure.height = width, height
    figure.x_label, figure.y_label = "step", "loss"
    steps, losses = [point["step"] for point in history], [point["loss"] for point in history]
    figure.set_x_limits(min_=0, max_=max(steps))
    figure.y_ticks_fkt = lambda low, _high: f"{low:.3g}"
    figure.x_ticks_fkt = lambda low, _high: f"{low:.0f}"
    figure.plot(steps, losses)
    drawn: str = figure.show()
    return drawn


def _pairs(values: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in values.items():
        table.add_row(Text(name, style="dim"), value)
    return table


def _engine(engine: Mapping[str, Any]) -> Table:
    versions = ", ".join(f"{name} {version}" for name, version in (engine.get("versions") or {}).items())
    return _pairs({str(engine.get("name", "")): str(engine.get("reason", "")), "packages": versions})


def _adapted(entries: list[Mapping[str, Any]]) -> Table:
    table = Table.grid(padding=(0, 2))
    for entry in entries:
        table.add_row(entry["field"], f"{entry.get('preset', '')} → {entry.get('value', '')}", Text(entry["reason"], style="dim"))
    return table


def _events(events: list[Object]) -> Table:
    table = Table.grid(padding=(0, 2))
    for event in events:
        style = "yellow" if event.get("type") == "Warning" else "dim"
        time = moment(_time(event)).astimezone()
        table.add_row(
            Text(f"{time:%H:%M:%S}", style="dim"),
            Text(event.get("reason") or "", style=style),
            Text(event.get("message") or "", overflow="fold"),
        )
    return table
