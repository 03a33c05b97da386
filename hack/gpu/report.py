"""Report of the check: a JSON file that is rewritten after each case, and a table."""

from __future__ import annotations

import json
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_stages.training.machine import readable

if TYPE_CHECKING:
    from .cases import Case

Figures = dict[str, Any]
_LEAST = 15.0
"""A case is not started with fewer seconds left."""
_COLUMNS = {
    "case": "name", "status": "status", "seconds": "seconds", "loss": "loss", "tokens/s": "tokensPerSecond", "peak memory": "peakBytes",
    "estimate": "estimatedBytes", "note": "note",
}  # fmt: skip


class CaseError(Exception):
    """A case failed. The message has the reason."""


@dataclass
class Report:
    """Runs cases within the time that is left, and records them.

    Attributes:
        path: the JSON file.
        tiny: all cases ran on the CPU with tiny shapes.
        seconds: limit for all cases together.
        machine: the document of ``--check``.
    """

    path: Path
    tiny: bool
    seconds: float
    machine: dict[str, Any] = field(default_factory=dict)
    cases: list[Figures] = field(default_factory=list)
    stopped: str | None = None
    _started: float = field(default_factory=time.monotonic)

    @property
    def failed(self) -> bool:
        """Whether a case failed or ran out of time."""
        return self.stopped is not None or any(case["status"] in ("failed", "timed out") for case in self.cases)

    @property
    def left(self) -> float:
        """Seconds that are left for all further cases."""
        return self.seconds - (time.monotonic() - self._started)

    def run(self, case: Case) -> None:
        """Run a case, unless a required one failed or the time is over."""
        problem = self.stopped or ("no time is left" if self.left < min(_LEAST, case.limit) else None)
        if problem is not None:
            self.leave_out(case, problem)
            return
        limit, started = min(case.limit, self.left), time.monotonic()
        print(f"{case.name} ...", flush=True)
        try:
            found: Figures = {"status": "passed", **case.run(limit)}
        except TimeoutError as error:
            found = {"status": "timed out", "note": str(error)}
        except CaseError as error:
            found = {"status": "failed", "note": str(error)}
        except Exception as error:  # noqa: BLE001 - the other cases still run
            traceback.print_exc()
            found = {"status": "failed", "note": f"{type(error).__name__}: {error}"}
        self._record({"name": case.name, "seconds": round(time.monotonic() - started, 1), **found})
        if case.required and found["status"] != "passed":
            self.stopped = f"{case.name}: {found['status']}"

    def leave_out(self, case: Case, why: str) -> None:
        """Record a case that does not run."""
        self._record({"name": case.name, "status": "not run", "note": why})

    def stop(self, why: str) -> None:
        """Record that no further case runs."""
        self.stopped = why

    def finish(self) -> None:
        """Write the report."""
        self._write()

    def table(self) -> list[str]:
        """Return the report as lines for people, in Markdown."""
        rows = [[_cell(case, key) for key in _COLUMNS.values()] for case in self.cases]
        widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
        lines = [list(_COLUMNS), ["-" * width for width in widths], *rows]
        return ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines]

    def _record(self, case: Figures) -> None:
        self.cases.append(case)
        print(f"{case['name']}: {case['status']}{' (' + case['note'] + ')' if case.get('note') else ''}", flush=True)
        self._write()

    def _write(self) -> None:
        content = {
            "tiny": self.tiny, "seconds": round(time.monotonic() - self._started, 1), "stopped": self.stopped, "cases": self.cases,
            "machine": self.machine,
        }  # fmt: skip
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        part.replace(self.path)


def _cell(case: Figures, key: str) -> str:
    value = case.get(key)
    if value is None:
        return ""
    if key.endswith("Bytes"):
        return readable(value)
    return f"{value:,.0f}" if key == "tokensPerSecond" else str(value).splitlines()[0][:160] if str(value) else ""
