"""The outcome of a run: scores before and after, gate, registered version and path of the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from finetune_operator.core.run import Run
from finetune_operator.core.summary import failure_line, left_out

from .rerun_command import command_to_repeat
from .rows_view import token_line

_LABEL_WIDTH = 12


def print_outcome(console: Console, run: Run, *, scores: bool = True, flags: str = "", repeated: str = "") -> None:
    """Print the outcome of a run.

    Args:
        console: where to print.
        run: the run.
        scores: whether to print its scores.
        flags: the options that select its backend in suggested commands.
        repeated: further options that a command which continues the run needs.
    """
    failure = run.status.get("failure")
    if failure:
        for item in failure_text(run, failure, flags, repeated):
            console.print(item, soft_wrap=True)  # not wrapped, so that commands can be copied
        return
    measured = score_table(run) if scores else None
    if measured is not None:
        console.print()
        console.print(measured)
    for line in gate_lines(run):
        console.print(line)
    console.print()
    for label, value in _results(run, flags):
        # Not wrapped, so that paths and commands can be copied.
        console.print(Text.assemble((label.ljust(_LABEL_WIDTH), "bold"), value), soft_wrap=True)


def score_table(run: Run) -> Table | None:
    """Return the scores of the base model and of the fine-tuned model, ``None`` without scores."""
    metrics = run.status.get("metrics") or {}
    after, before = metrics.get("evaluation") or {}, metrics.get("baseline") or {}
    names = [name for name in after if "." in name and "_stderr" not in name]
    if not names:
        return None
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("score")
    if before:
        table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    if before:
        table.add_column("change", justify="right")
    directions = metrics.get("higherIsBetter") or {}
    for name in names:
        cells: list[str | Text] = [name, _number(after[name], after.get(f"{name}_stderr"))]
        if before:
            cells.insert(1, _number(before[name], before.get(f"{name}_stderr")) if name in before else "")
            cells.append(_change(before.get(name), after[name], directions.get(name)))
        table.add_row(*cells)
    return table


def gate_lines(run: Run) -> Iterator[Text]:
    """Yield the result of each requirement of the gate; nothing without a gate."""
    gate = run.status.get("gate")
    if not gate:
        return
    passed = gate["passed"]
    yield Text(
        "\ngate passed" if passed else "\ngate rejected the model; its files are kept",
        style="bold green" if passed else "bold red",
    )
    for verdict in gate["requirements"]:
        mark, style = ("✓", "green") if verdict["passed"] else ("✗", "bold red")
        yield Text.assemble((f"  {mark} ", style), str(verdict["message"]))


def _number(value: float, error: float | None) -> str:
    return f"{value:.4g} ± {error:.2g}" if error else f"{value:.4g}"


def _change(before: float | None, after: float, higher_is_better: bool | None) -> str | Text:
    if before is None:
        return ""
    delta = after - before
    if higher_is_better is None or delta == 0:
        return f"{delta:+.4g}"
    better = (delta > 0) == higher_is_better
    return Text(f"{delta:+.4g} {'better' if better else 'worse'}", style="green" if better else "red")


def _results(run: Run, flags: str) -> Iterator[tuple[str, str]]:
    model, registry, rows = (run.status.get(field) or {} for field in ("model", "registry", "rows"))
    if left_out(rows):
        yield "rows", f"{rows.get('trained', 0):,} trained; {left_out(rows)}"
    tokens = token_line(rows, run.status.get("estimate") or {})
    if tokens:
        yield "tokens", tokens
    if run.status.get("sample"):
        yield "first rows", f"finetune describe {run.name}{flags} shows them with what is learned"
    if rows.get("notMeasured"):
        yield "held out", f"{rows.get('measured', 0):,} scored; {rows['notMeasured']:,} without an answer that can be scored"
    for warning in run.status.get("warnings") or ():
        yield "warning", f"{warning['stage']}: {warning['message']}"
    if registry:
        yield "registered", f"{registry['name']} {registry['version']} ({registry['kind']} version {registry['registryVersion']})"
    if model.get("uri"):
        yield "model", str(model["uri"]).removeprefix("file://")
    if model.get("adapterUri"):
        yield "adapter", str(model["adapterUri"]).removeprefix("file://")
    store = _mlflow_store(run)
    if registry.get("kind") == "MLflow" and store:
        yield "inspect", f"mlflow ui --backend-store-uri sqlite:///{store}"
    adapted = (run.status.get("resolved") or {}).get("adapted") or ()
    if adapted:
        yield "adapted", f"{', '.join(entry['field'] for entry in adapted)} (finetune describe {run.name}{flags})"


def _mlflow_store(run: Run) -> str | None:
    uri = str((run.status.get("model") or {}).get("uri", ""))
    return f"{uri.removeprefix('file://').split('/runs/')[0]}/mlflow.db" if uri.startswith("file://") else None


def failure_text(run: Run, failure: Mapping[str, Any], flags: str = "", repeated: str = "") -> Iterator[RenderableType]:
    """Yield why a run failed and what to do."""
    line = Text(failure_line(failure))
    line.stylize("bold red", end=len(failure_line({**failure, "message": None})))
    yield line
    if failure.get("hint"):
        yield Text(str(failure["hint"]))
    if failure.get("stage") and failure.get("logTail"):
        yield Text(f"complete log: finetune logs {run.name}{flags} --stage {failure['stage']}", style="dim")
    command = command_to_repeat(run, f"{flags}{repeated}")
    if command:
        yield Text(command, style="dim")
