"""The table of runs: what its columns show, at once or line by line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from finetune_operator.core.conditions import short_duration
from finetune_operator.core.run import Run
from finetune_operator.core.times import moment
from finetune_operator.loop.cluster import Object

from .display import PHASE_STYLES

_SCORES = 4
"""Scores in the table: more do not fit beside each other."""
_GAP = 2


@dataclass
class RunTable:
    """Lines of the same columns; those printed later line up with the first ones.

    Args:
        wide: whether what is left, the queue and the message are shown, too.
        namespaces: whether runs of several namespaces are shown.
    """

    screen: Console
    wide: bool = False
    namespaces: bool = False
    _scores: list[str] = field(default_factory=list)
    _widths: dict[str, int] = field(default_factory=dict)

    def print(self, documents: Sequence[Object]) -> None:
        """The head and a line for each run."""
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
        """One more line, as wide as those before."""
        line = Text()
        for column, value in self._cells(document).items():
            width = self._widths[column]
            line.append(_styled(column, value.rjust(width) if column in self._scores else value.ljust(width)))
            line.append(" " * _GAP)
        line.rstrip()
        self.screen.print(line, soft_wrap=True)

    def shown(self, document: Object) -> tuple[str, ...]:
        """What a line says that matters: one that differs in its age alone is no news."""
        return tuple(value for column, value in self._cells(document).items() if column != "AGE")

    def _cells(self, document: Object) -> dict[str, str]:
        run = Run.parse(document)
        summary = run.status.get("summary") or {}
        return {
            **({"NAMESPACE": run.namespace} if self.namespaces else {}),
            "NAME": run.name, "ALGORITHM": summary.get("algorithm", ""), "PHASE": str(run.status.get("phase", "Pending")),
            "PROGRESS": summary.get("progress", ""), "ROWS": summary.get("rows", ""), "LOSS": summary.get("loss", ""),
            **{score: _before_and_after(run, score) for score in self._scores},
            "MODEL": summary.get("model", ""), "AGE": _age(document),
            **({
                "ETA": summary.get("eta", ""), "QUEUE": summary.get("queue", ""), "MESSAGE": summary.get("message", ""),
            } if self.wide else {}),
        }  # fmt: skip


def _styled(column: str, value: str) -> Text:
    return Text(value, style=PHASE_STYLES.get(value.strip(), "cyan")) if column == "PHASE" else Text(value)


def main_scores(found: Sequence[Run]) -> list[str]:
    """The scores to compare runs by: those that their gates name, then the first of each task, a few at the most."""
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
