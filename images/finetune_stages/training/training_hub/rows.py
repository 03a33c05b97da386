"""Tokenized rows in the format that both backends read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from finetune_stages.training.rows import IGNORED, Rows

_BETWEEN_REPORTS = 10_000


def write_rows(rows: Rows, path: Path, report: Callable[[int], object]) -> None:
    """Write one JSON object per row: ``input_ids``, ``labels`` (-100 where nothing is learned), ``len``, ``num_loss_counted_tokens``.

    ``report`` receives the number of written rows. Each pod writes its own file: the backends' jobs on several nodes would otherwise
    write one file at the same time.
    """
    with path.open("w", encoding="ascii") as file:
        for number, (start, end) in enumerate(zip(rows.offsets[:-1].tolist(), rows.offsets[1:].tolist(), strict=True)):
            tokens, learned = rows.tokens[start:end], rows.learned[start:end]
            row = {
                "input_ids": tokens.tolist(), "labels": np.where(learned, tokens, IGNORED).tolist(), "len": end - start,
                "num_loss_counted_tokens": int(learned.sum()),
            }  # fmt: skip
            file.write(json.dumps(row, separators=(",", ":")) + "\n")
            if number % _BETWEEN_REPORTS == 0:
                report(number)
