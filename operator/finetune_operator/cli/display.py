"""Display of a running run: a live table on a terminal, otherwise a line for each change."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from finetune_operator.core.condition import find_condition
from finetune_operator.core.run import Run, StageStatus
from finetune_operator.core.times import short_duration

from .stages_view import StageLine, progress_text, stage_lines
from .terminal import console

MARKS = {
    "Succeeded": ("✓", "green"), "Failed": ("✗", "bold red"), "Skipped": ("-", "dim"), "Pending": ("·", "dim"),
    "Retrying": ("↻", "yellow"),
}  # fmt: skip
PHASE_STYLES = {"Succeeded": "bold green", "Failed": "bold red", "Rejected": "bold red", "Suspended": "yellow"}
_STOPPED = " (stopped)"
_LINE_SECONDS = 5.0
"""Least time between two progress lines of the plain display, in seconds."""


def phase_text(run: Run, *, driven: bool) -> str:
    """Return the phase of a run, with a mark if it has not ended and no process works on it."""
    phase = str(run.status.get("phase", "Pending"))
    return phase if driven or not is_stopped(run) else phase + _STOPPED


def is_stopped(run: Run) -> bool:
    """Return whether a run needs a process to continue: it has neither ended nor been suspended."""
    return not run.ended and not run.spec.get("suspend")


def phase_style(phase: str) -> str:
    """Return the style of a :func:`phase_text`."""
    return "yellow" if phase.endswith(_STOPPED) else PHASE_STYLES.get(phase, "cyan")


class Display(Protocol):
    """Displays a run. It is a context manager; inside, :meth:`show` is called with every new state."""

    def __enter__(self) -> Self:
        """Start the display."""
        ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop the display."""
        ...

    def show(self, run: Run) -> None:
        """Display the present state."""
        ...

    def skip(self, run: Run) -> None:
        """Take a state as known, without displaying it."""
        ...


def display(*, plain: bool, quiet: bool) -> Display:
    """Return the display for standard output: live on a terminal, otherwise lines. With ``quiet``, lines on standard error."""
    screen = console(stderr=quiet)
    return LineDisplay(screen, complete=quiet) if plain or quiet or not screen.is_terminal else LiveDisplay(screen)


class LiveDisplay:
    """A live table of the stages."""

    def __init__(self, screen: Console) -> None:
        self._run: Run | None = None
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=screen, refresh_per_second=8, get_renderable=self._render)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.stop()

    def show(self, run: Run) -> None:
        """Set the state that the next refresh shows."""
        self._run = run

    def skip(self, run: Run) -> None:
        """Display nothing."""

    def _render(self) -> Group | Text:
        if self._run is None:
            return Text("starting", style="dim")
        return Group(_headline(self._run), _table(self._run, self._spinner))


def _headline(run: Run) -> Text:
    summary = run.status.get("summary") or {}
    phase = str(run.status.get("phase", "Pending"))
    line = Text.assemble((run.name, "bold"), "  ", (phase, PHASE_STYLES.get(phase, "cyan")))
    for part in (summary.get("algorithm"), run.experiment):
        if part:
            line.append(f" · {part}", style="dim")
    return line


def _table(run: Run, spinner: Spinner) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(min_width=13)
    table.add_column(ratio=1)
    table.add_column(justify="right", style="dim", min_width=6)
    table.expand = True
    for line in stage_lines(run, datetime.now(UTC)):
        mark, style = MARKS.get(line.state, ("", ""))
        running = line.state == "Running"
        seconds = "" if line.seconds is None or line.state == "Pending" else short_duration(line.seconds)
        table.add_row(
            spinner if running else Text(mark, style=style), Text(line.name, style="dim" if line.state == "Pending" else ""),
            _details(line), seconds,
        )  # fmt: skip
    return table


def _details(line: StageLine) -> Table | Text:
    if line.percent is None:
        return Text(line.text, style="red" if line.state == "Failed" else "dim", overflow="ellipsis", no_wrap=True)
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=100, completed=line.percent, width=24),
        f"{line.percent:3d}%",
        Text(line.text, style="dim", no_wrap=True),
    )
    return bar


_Mark = tuple[str, int, int]
"""State, round and attempt of a stage."""


def _mark(stage_status: StageStatus) -> _Mark:
    return stage_status.state, stage_status.round, stage_status.attempt


def _ends_run(run: Run, line: StageLine) -> bool:
    """Return whether a stage has failed, and the run with it."""
    return line.state == "Failed" and (run.status.get("failure") or {}).get("stage") == line.name


class LineDisplay:
    """A line for each transition and regular progress lines, for files, pipes and CI.

    Without ``complete``, the failure that ends the run is only named: the outcome follows with its message.
    """

    def __init__(self, screen: Console, *, complete: bool = True) -> None:
        self._screen = screen
        self._complete = complete
        self._seen: dict[str, _Mark] = {}
        self._progress_at: datetime | None = None
        self._blocker = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._screen.file.flush()

    def show(self, run: Run) -> None:
        """Print what has changed."""
        now = datetime.now(UTC)
        for line in stage_lines(run, now):
            mark = _mark(run.stages[line.name])
            if self._seen.get(line.name) != mark and line.state != "Pending":
                self._seen[line.name] = mark
                took = (
                    f" ({short_duration(line.seconds)})"
                    if line.seconds is not None and line.state in ("Succeeded", "Failed")
                    else ""
                )
                text = line.text if self._complete or not _ends_run(run, line) else str(run.stages[line.name].reason)
                self._print(now, f"{line.name}: {line.state.lower()}{took}{': ' + text if text else ''}")
        self._show_blocker(run, now)
        self._show_progress(run, now)

    def skip(self, run: Run) -> None:
        """Record the state of the stages without printing it."""
        self._seen = {name: _mark(stage_status) for name, stage_status in run.stages.items()}

    def _show_blocker(self, run: Run, now: datetime) -> None:
        """Print the condition Stalled, which needs an action of a user."""
        condition = find_condition(run.status, "Stalled")
        if run.ended or condition is None or condition["status"] != "True":
            return
        message = f"waiting: {condition['reason']}: {condition['message']}"
        if message != self._blocker:
            self._blocker = message
            self._print(now, message)

    def _show_progress(self, run: Run, now: datetime) -> None:
        progress = run.status.get("progress") or {}
        if not progress or (self._progress_at and (now - self._progress_at).total_seconds() < _LINE_SECONDS):
            return
        self._progress_at = now
        self._print(now, f"{progress['stage']}: {progress['percent']}% {progress_text(progress)}")

    def _print(self, now: datetime, text: str) -> None:
        self._screen.print(f"{now.astimezone():%H:%M:%S} {text}", soft_wrap=True, markup=False)
        sys.stdout.flush()
