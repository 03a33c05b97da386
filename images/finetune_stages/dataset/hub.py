"""A data set of the hub: any format that the ``datasets`` library reads, written as JSON Lines."""

from __future__ import annotations

import base64
import json
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finetune_contract import reasons
from finetune_contract.codec import digest
from finetune_stages.kit import Context, StageError
from finetune_stages.kit.fault import causes, first_line
from finetune_stages.sources.background import folder_size, in_background
from finetune_stages.sources.hub import Repository, find_repository, hub_errors, hub_fault, token
from finetune_stages.sources.meter import Meter, tell
from finetune_stages.sources.uri import HubId

from .json_lines import JsonLines
from .wanted import Wanted

if TYPE_CHECKING:
    from datasets import Dataset, DatasetBuilder

_BATCH = 1000


@dataclass(frozen=True)
class HubDataset:
    """A data set at one commit."""

    repository: Repository
    config: str | None
    wanted: Wanted

    @property
    def id(self) -> str:
        """Its id at the hub."""
        return self.repository.id

    @property
    def commit(self) -> str:
        """The commit that the revision is now."""
        return self.repository.commit

    @property
    def digest(self) -> str:
        """A commit never changes, so this stands for the content."""
        return digest([self.id, self.config, self.wanted.split or list(self.wanted.preferred_splits), self.commit])


def resolve(place: HubId, wanted: Wanted, context: Context) -> HubDataset:
    """The data set at the commit that the revision is now.

    Raises:
        StageError: one of the reasons of ``wanted.origin``.
    """
    return HubDataset(find_repository(wanted.origin, place.id, wanted.revision, context), place.config, wanted)


def open_hub_rows(
    found: HubDataset, choose: Callable[[int], Sequence[int]], context: Context, scratch: Path
) -> tuple[JsonLines, int]:
    """Download one split and write the chosen rows as JSON Lines into ``scratch``; returns them and how many there are in all.

    Raises:
        StageError: ``SplitNotFound``, ``DatasetUnreadable``, ``DatasetEmpty``, or one of the reasons of the data set's origin.
    """
    with hub_errors(found.wanted.origin, found.id, found.commit), _readable(found):
        dataset = _load(found, context, scratch)
        if not len(dataset):
            raise StageError(reasons.DATASET_EMPTY, f"{found.id} has no rows in its split {dataset.split}; name another split.")
        numbers = choose(len(dataset))
        meter = Meter(context, f"reading {found.id}", len(numbers), 50, 60, rows=True)
        return _written(dataset, numbers, scratch / f"{found.wanted.origin.field}.jsonl", meter), len(dataset)


def _load(found: HubDataset, context: Context, scratch: Path) -> Dataset:
    builder = in_background(lambda: _builder(found, scratch), lambda: tell(context, f"reading what {found.id} is made of"))
    split = _choose_split(found, builder)
    files = builder.config.data_files[split]
    meter = Meter(context, f"downloading {found.id}", _size_of(files, found), 0, 50)
    # Only this split: the library would download and convert all of them.
    builder.config.data_files = type(builder.config.data_files)({split: files})
    before = folder_size(scratch)
    in_background(
        lambda: builder.download_and_prepare(verification_mode="no_checks"), lambda: meter.at(folder_size(scratch) - before)
    )
    return builder.as_dataset(split=split)


def _builder(found: HubDataset, scratch: Path) -> DatasetBuilder:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    # With the scheme the library does not take a folder of that name in the working directory for the data set.
    return datasets.load_dataset_builder(
        f"hf://datasets/{found.id}", name=found.config, revision=found.commit, token=token(),
        cache_dir=str(scratch / "hub" / found.wanted.origin.field),
    )  # fmt: skip


def _choose_split(found: HubDataset, builder: DatasetBuilder) -> str:
    splits = [str(split) for split in builder.config.data_files or ()]
    if found.wanted.split is None:
        return next((split for split in found.wanted.preferred_splits if split in splits), splits[0])
    if found.wanted.split not in splits:
        raise StageError(
            reasons.SPLIT_NOT_FOUND, f"{found.id} has no split {found.wanted.split!r}; its splits are {', '.join(splits)}."
        )
    return found.wanted.split


def _size_of(files: Sequence[str], found: HubDataset) -> int:
    """Bytes of some of the repository's files (``hf://datasets/<id>@<commit>/<path>``)."""
    return sum(found.repository.sizes.get(file.partition("@")[2].partition("/")[2], 0) for file in files)


@contextmanager
def _readable(found: HubDataset) -> Iterator[None]:
    """The library's own complaints: no such configuration, no file that it can read, faulty files."""
    try:
        yield
    except StageError:
        raise
    except Exception as error:
        name, config = found.id, found.config
        text = str(error)
        if "BuilderConfig" in text and "Available:" in text:
            raise StageError(
                reasons.SPLIT_NOT_FOUND, f"{name} has no configuration {config!r}; it has {_listed(text)}."
            ) from error
        if "Config name is missing" in text:
            raise StageError(
                reasons.SPLIT_NOT_FOUND,
                f"{name} needs a configuration; write hf://{name}:<configuration> with one of {_listed(text)}.",
            ) from error
        if hub_fault(error, found.wanted.origin, name) or any(isinstance(link, OSError) and link.errno for link in causes(error)):
            raise  # the network or the disk, judged elsewhere
        root = causes(error)[-1]
        raise StageError(
            reasons.DATASET_UNREADABLE,
            f"{name} cannot be read by the datasets library ({type(root).__name__}: {first_line(root, 300)}).",
        ) from error


def _listed(text: str) -> str:
    """The names in the list that the library's message shows."""
    inside = text.partition("[")[2].partition("]")[0]
    return ", ".join(part.strip().strip("'\"") for part in inside.split(",")[:20])


def _written(dataset: Dataset, numbers: Sequence[int], target: Path, meter: Meter) -> JsonLines:
    """Write the chosen rows, a JSON object a line. Keys that are null are left out: Arrow has no other way to say "absent"."""
    if len(numbers) != len(dataset) or not isinstance(numbers, range):
        dataset = dataset.select(numbers)
    starts = array("q", [0])
    with target.open("wb", buffering=1 << 20) as stream:
        for batch in dataset.iter(_BATCH):
            columns = list(batch)
            for values in zip(*batch.values(), strict=True):
                text = _json(without_nulls(dict(zip(columns, values, strict=True))))
                starts.append(starts[-1] + stream.write(text) + stream.write(b"\n"))
            meter(len(next(iter(batch.values()), ())))
    begin = np.frombuffer(starts, dtype=np.int64)
    rows = np.asarray(numbers, dtype=np.int64)
    return JsonLines(target, np.stack([rows, np.zeros_like(rows), begin[:-1], np.diff(begin) - 1], axis=1))


def without_nulls(value: Any) -> Any:
    """``value`` without the keys that are null, at every depth; numbers that JSON does not have (NaN) are null."""
    if isinstance(value, dict):
        plain = {key: without_nulls(item) for key, item in value.items()}
        return {key: item for key, item in plain.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False, default=_plain).encode()
    except UnicodeEncodeError:  # half a character: left to the check of the rows, which names the row
        return json.dumps(row, default=_plain).encode()


def _plain(value: Any) -> Any:
    """JSON for what JSON has no type for: times as ISO 8601, bytes as base64."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
