"""The table of runs, printed at once or line by line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from finetune_operator.core.run import Run
from finetune_operator.core.times import moment, short_duration
from finetune_operator.loop.cluster import Object

from .display import phase_style, phase_text
from .echo import visible_values

_SCORES = 4
"""Largest number of score columns, for the width of a terminal."""
_GAP = 2


@dataclass
class RunTable:
    """A table of runs; lines that are added later have the same columns and widths.

    Args:
        wide: whether to show time left, queue and message.
        namespaces: whether to show the namespace.
        is_driven: whether a process works on the runs, see :class:`~.backend.Backend`.
    """

    screen: Console
    wide: bool = False
    namespaces: bool = False
    is_driven: Callable[[], bool] = lambda: True
    _scores: list[str] = field(default_factory=list)
    _widths: dict[str, int] = field(default_factory=dict)

    def print(self, documents: Sequence[Object]) -> None:
        """Print the header and a line for each run."""
        self._scores = main_scores([Run.parse(document) for document in documents])
        table = Table(box=None, pad_edge=False, header_style="bold")
        rows = [self._cells(document) for document in documents]
        columns = list(rows[0])
        for column in columns:
            table.add_column(column, no_wrap=True, justify="right" if column in self._scores else "left")
            self._widths[column] = max(len(column), *(len(row[column]) for row in rows))
        for row in rows:
            table.add_row(*(_styled(column, value) for column, value in row.items()))
        self.screen.print(table)

    def add(self, document: Object) -> None:
        """Print another line with the widths of the earlier ones."""
        line = Text()
        for column, value in self._cells(document).items():
            width = self._widths[column]
            line.append(_styled(column, value.rjust(width) if column in self._scores else value.ljust(width)))
            line.append(" " * _GAP)
        line.rstrip()
        self.screen.print(line, soft_wrap=True)

    def fingerprint(self, document: Object) -> tuple[str, ...]:
        """Return the content of a line without the age, to detect changes."""
        return tuple(value for column, value in self._cells(document).items() if column != "AGE")

    def _cells(self, document: Object) -> dict[str, str]:
        run = Run.parse(visible_values(document))
        summary = run.status.get("summary") or {}
        return {
            **({"NAMESPACE": run.namespace} if self.namespaces else {}),
            "NAME": run.name, "ALGORITHM": summary.get("algorithm", ""), "PHASE": phase_text(run, driven=self.is_driven()),
            "PROGRESS": summary.get("progress", ""), "ROWS": summary.get("rows", ""), "LOSS": summary.get("loss", ""),
            **{score: _before_and_after(run, score) for score in self._scores},
            "MODEL": summary.get("model", ""), "AGE": _age(document),
            **({
                "ETA": summary.get("eta", ""), "QUEUE": summary.get("queue", ""), "MESSAGE": summary.get("message", ""),
            } if self.wide else {}),
        }  # fmt: skip


def _styled(column: str, value: str) -> Text:
    return Text(value, style=phase_style(value.strip())) if column == "PHASE" else Text(value)


def main_scores(found: Sequence[Run]) -> list[str]:
    """Return the scores to compare runs by: those of their gates, then the first of each task, up to a limit."""
    names: dict[str, None] = {}
    for run in found:
        for requirement in run.resolved.gate.requirements:
            names[requirement.metric] = None
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
