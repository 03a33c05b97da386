"""Rows, tokens and estimates of a run, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from finetune_operator.core.quantities import counted, readable

from .echo import visible

_TOKENS = {"p50": "median", "p90": "90%", "p99": "99%", "max": "longest"}


def row_values(rows: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of ``status.rows`` by name."""
    found = {name: f"{count:,}" for name, count in rows.items() if isinstance(count, int)}
    if rows.get("tokens") and "learnedTokens" in rows:
        found["learnedTokens"] += f" ({rows['learnedTokens'] / rows['tokens']:.0%})"
    if rows.get("tokensPerRow"):
        found["tokensPerRow"] = ", ".join(f"{label} {rows['tokensPerRow'][key]:,}" for key, label in _TOKENS.items())
    return found


def estimate_values(estimate: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of ``status.estimate`` by name."""
    found = {name: f"{value:,}" if isinstance(value, int) else str(value) for name, value in estimate.items()}
    return {**found, "memoryBytes": readable(estimate["memoryBytes"])} if "memoryBytes" in estimate else found


def token_line(rows: Mapping[str, Any], estimate: Mapping[str, Any]) -> str | None:
    """Return one line about tokens, steps, memory and time of GPUs; ``None`` before the rows are tokenized."""
    if not estimate:
        return None
    per_row, values = rows["tokensPerRow"], row_values(rows)
    parts = [
        f"{values['tokens']} in {counted(rows['trained'], 'row')} (median {per_row['p50']:,}, longest {per_row['max']:,})",
        f"{values['learnedTokens']} learned",
        f"{counted(estimate['steps'], 'step')}, {estimate['stepsPerEpoch']:,} per epoch",
    ]
    if "memoryBytes" in estimate:
        parts.append(f"{readable(estimate['memoryBytes'])} for weights and optimizer in each process without sharding")
    if "gpuTime" in estimate:
        parts.append(str(estimate["gpuTime"]))
    return "; ".join(parts)


def sample_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[Text]:
    """Yield the rows of ``status.sample``: each part begins on a new line, and the lines of learned parts begin with ``+``."""
    for row in rows:
        line = f" (line {row['line']:,})" if row["line"] else ""
        yield Text(f"row {row['row']:,}{line}: {counted(row['tokens'], 'token')}, {row['learnedTokens']:,} learned", style="dim")
        for part in row["parts"]:
            if "text" not in part:
                yield Text(f"  ... {counted(part['omitted'], 'character')} left out ...", style="dim")
                continue
            mark, style = ("+", "green") if part["learned"] else (" ", "")
            for text in part["text"].removesuffix("\n").split("\n"):
                yield Text(f"{mark} {visible(text)}", style=style, overflow="fold")
