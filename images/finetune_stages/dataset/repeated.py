"""Rows with equal messages: repeated rows in one source, and held-out rows that are trained on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from finetune_stages.sources.json_lines import JsonLines
from finetune_stages.sources.row_faults import SHOWN, are


def repeated_note(rows: JsonLines, keys: NDArray[np.int64]) -> Iterator[str]:
    """Yield a warning if rows repeat an earlier row: chat rows repeat its messages. ``keys``: see :func:`.usual_rows.messages_key`."""
    ordered = np.sort(keys)
    if not (ordered[1:] == ordered[:-1]).any():
        return
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    repeats = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
    first = repeats[np.argmin(order[repeats])]  # the second of its run, as equal keys are in the order of the rows
    later, earlier = int(order[first]), int(order[first - 1])
    verb = "repeats" if len(repeats) == 1 else "repeat"
    yield (
        f"{len(repeats):,} of {len(rows):,} rows {verb} an earlier row; the first is {rows.label(later)}, which repeats"
        f" {rows.label(earlier)}."
    )


def leaked_note(held_out: JsonLines, keys: NDArray[np.int64], trained: NDArray[np.int64], remedy: str) -> Iterator[str]:
    """Yield a warning if held-out rows have the messages of a training row; ``trained`` are the keys of those."""
    leaked = np.flatnonzero(_is_in(keys, trained))
    if not len(leaked):
        return
    shown = ", ".join(held_out.label(position) for position in leaked[:SHOWN].tolist())
    more = ", ..." if len(leaked) > SHOWN else ""
    yield f"{len(leaked):,} of {len(keys):,} held-out rows {are(len(leaked))} also trained on ({shown}{more}); {remedy}."


def _is_in(keys: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether each key is among the others."""
    ordered = np.sort(others)
    found: NDArray[np.bool_] = np.searchsorted(ordered, keys, "left") < np.searchsorted(ordered, keys, "right")
    return found
