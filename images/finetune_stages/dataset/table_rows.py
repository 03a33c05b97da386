"""Parquet and Arrow files, which the ``datasets`` library reads, as rows of JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import causes, first_line
from finetune_stages.sources.json_lines import JsonLines

from .arrow_rows import text_columns, write_arrow_rows
from .table_columns import readable_columns
from .table_size import TableKind, measure

if TYPE_CHECKING:
    from datasets import Dataset
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Table:
    """The rows of a Parquet or Arrow file.

    Attributes:
        notes: warnings about columns that are left out.
    """

    dataset: Dataset
    target: Path
    advance: Callable[[int], object]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.dataset)

    def select(self, numbers: Sequence[int] | NDArray[np.int64]) -> JsonLines:
        """Return the rows at these positions, in this order. Called at most once."""
        every = range(len(self))  # need not be copied
        return write_arrow_rows(
            self.dataset, every if np.array_equal(numbers, every) else list(numbers), self.target, self.advance
        )


def open_table(path: Path, kind: TableKind, name: str, target: Path, advance: Callable[[int], object]) -> Table:
    """Return the rows of a file; ``target`` is the file that selected rows are written to.

    Raises:
        StageError: ``DatasetUnreadable``: the file is damaged, its content is too large, or it has images or sound in the messages.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    size = measure(path, kind, name)
    if kind == "Parquet" and not size.rows:
        return Table(datasets.Dataset.from_dict({}), target, advance, ())  # the library reads no file without rows
    options = {"batch_size": size.batch_rows} if kind == "Parquet" else {}
    try:
        columns, left_out = readable_columns(path, kind, name)
        cache = str(target.with_name(f"{target.name}.tables"))
        builder = datasets.load_dataset_builder(
            kind.lower(), data_files={"train": [str(path)]}, cache_dir=cache, **options, **columns
        )
        builder.download_and_prepare(verification_mode="no_checks")
        dataset, notes = text_columns(builder.as_dataset(split="train"), name)
    except StageError:
        raise
    except Exception as error:
        if any(isinstance(link, OSError) and link.errno for link in causes(error)):
            raise  # an error of the disk
        raise StageError(
            reasons.DATASET_UNREADABLE,
            f"{name}: is a damaged {kind} file ({_detail(error)}); write or download it again.",
        ) from error
    return Table(dataset, target, advance, (*left_out, *notes))


def _detail(error: BaseException) -> Any:
    return first_line(causes(error, suppressed=False)[-1], 200).rstrip(".")
