"""Datasets of the hub: this project's reader for JSON, the ``datasets`` library for other formats."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_contract import reasons
from finetune_contract.codec import digest
from finetune_contract.uris import HubId
from finetune_stages.sdk import Context, StageError
from finetune_stages.sdk.fault import causes, first_line
from finetune_stages.sources.background import in_background
from finetune_stages.sources.download_limits import require_size
from finetune_stages.sources.hub import Repository, find_repository, hub_errors, hub_fault, token
from finetune_stages.sources.json_lines import OpenedRows
from finetune_stages.sources.json_values import shown
from finetune_stages.sources.progress import report_note

from .hub_split import HubSplit, path_in_repository
from .source_request import SourceRequest

if TYPE_CHECKING:
    from datasets import DatasetBuilder

_CONVERTED = "refs/convert/parquet"
"""Branch with the hub's conversion of a dataset to Parquet."""
_NO_FILES = ("EmptyDatasetError", "DataFilesNotFoundError")
_SCRIPTS = "scripts are no longer supported"
_INTERNAL_PATH = re.compile(r"(?:hf:/|file:/)?/[^\s'\",)]*/([^/\s'\",)]+)")


@dataclass(frozen=True)
class HubDataset:
    """A dataset at one commit."""

    repository: Repository
    config: str | None
    request: SourceRequest

    @property
    def id(self) -> str:
        """Its id on the hub."""
        return self.repository.id

    @property
    def commit(self) -> str:
        """Commit that the revision currently refers to."""
        return self.repository.commit

    @property
    def digest(self) -> str:
        """Digest of repository, configuration, split and commit, which identify the content."""
        return digest([self.id, self.config, self.request.split or list(self.request.preferred_splits), self.commit])


def resolve(source_uri: HubId, request: SourceRequest, context: Context) -> HubDataset:
    """Return the dataset at the commit that the revision currently refers to.

    Raises:
        StageError: one of the reasons of ``request.origin``.
    """
    return HubDataset(find_repository(request.origin, source_uri.id, request.revision, context), source_uri.config, request)


def open_hub_rows(found: HubDataset, choose: Callable[[int], Sequence[int]], context: Context, scratch: Path) -> OpenedRows:
    """Download one split and write the selected rows as JSON Lines into ``scratch``.

    Raises:
        StageError: ``SplitNotFound``, ``DatasetUnreadable``, ``DatasetEmpty``, or one of the reasons of the dataset's origin.
    """
    with hub_errors(found.request.origin, found.id, found.commit), _readable(found):
        builder = in_background(
            lambda: _builder(found, scratch), lambda: report_note(context, f"reading the metadata of {found.id}")
        )
        split = _choose_split(found, builder)
        _require_own_files(found, builder.config.data_files[split])
        total = sum(found.repository.sizes.get(path_in_repository(str(file)), 0) for file in builder.config.data_files[split])
        require_size(total, found.request.origin, found.id)
        # Only this split: by default the library downloads and converts all splits.
        builder.config.data_files = type(builder.config.data_files)({split: builder.config.data_files[split]})
        field = found.request.origin.field
        return HubSplit(found.repository, builder, split, scratch / "hub" / field, scratch / f"{field}.jsonl", context).read(
            choose
        )


def _builder(found: HubDataset, scratch: Path) -> DatasetBuilder:
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    # With the scheme the library ignores a folder of that name in the working directory.
    return datasets.load_dataset_builder(
        f"hf://datasets/{found.id}", name=found.config, revision=found.commit, token=token(),
        cache_dir=str(scratch / "hub" / found.request.origin.field),
    )  # fmt: skip


def _require_own_files(found: HubDataset, files: Sequence[object]) -> None:
    """Reject a dataset whose card names files outside of the repository: paths of this machine, or addresses of other servers."""
    inside = f"hf://datasets/{found.id}@{found.commit}/"
    for file in map(str, files):
        if not file.startswith(inside) or ".." in file.removeprefix(inside).split("/"):
            raise StageError(
                reasons.DATASET_UNREADABLE,
                f"{found.id}: its dataset card names {shown(file)}, which is not a file of the repository; use another configuration, or a"
                " dataset whose files are in its repository.",
            )


def _choose_split(found: HubDataset, builder: DatasetBuilder) -> str:
    splits = [str(split) for split in builder.config.data_files or ()]
    if found.request.split is None:
        return next((split for split in found.request.preferred_splits if split in splits), splits[0])
    if found.request.split not in splits:
        raise StageError(
            reasons.SPLIT_NOT_FOUND, f"{found.id}: it has no split {found.request.split!r}; use one of {', '.join(splits)}."
        )
    return found.request.split


@contextmanager
def _readable(found: HubDataset) -> Iterator[None]:
    """Raise errors of the ``datasets`` library as stage errors: unknown configuration, no readable file, faulty files."""
    try:
        yield
    except StageError:
        raise
    except Exception as error:
        name, config = found.id, found.config
        text = str(error)
        if "BuilderConfig" in text and "Available:" in text:
            raise StageError(
                reasons.SPLIT_NOT_FOUND, f"{name}: it has no configuration {config!r}; use one of {_listed(text)}."
            ) from error
        if "Config name is missing" in text:
            raise StageError(
                reasons.SPLIT_NOT_FOUND,
                f"{name}: it requires a configuration; write hf://{name}:<configuration> with one of {_listed(text)}.",
            ) from error
        if hub_fault(error, found.request.origin, name) or any(
            isinstance(link, OSError) and link.errno for link in causes(error)
        ):
            raise  # an error of the network or the disk
        raise StageError(reasons.DATASET_UNREADABLE, f"{name}: {_why_unreadable(error, found)}.") from error


def _why_unreadable(error: Exception, found: HubDataset) -> str:
    """Return the problem of a dataset and its fix."""
    links = causes(error, suppressed=False)
    scripts = sorted(path for path in found.repository.sizes if path.endswith(".py"))
    if _SCRIPTS in str(error) or (scripts and any(type(link).__name__ in _NO_FILES for link in links)):
        return (
            f"it is a script ({', '.join(scripts[:3])}), which the datasets library no longer runs, and has no data files;"
            f" set dataset.revision to {_CONVERTED} if the hub has converted it, or use a dataset of files"
        )
    if any(type(link).__name__ in _NO_FILES for link in links):
        held = sorted(path for path in found.repository.sizes if path != ".gitattributes")
        what = f"only {', '.join(held[:5])}{', ...' if len(held) > 5 else ''}" if held else "nothing"
        return f"it has no data files ({what}); use a dataset with JSON, JSON Lines or Parquet files"
    root = links[-1]
    text = _INTERNAL_PATH.sub(r"\1", first_line(root, 300)).rstrip(".")
    return f"the datasets library cannot read its files ({type(root).__name__}: {text}); correct them, or use another dataset"


def _listed(text: str) -> str:
    """Return the names in the list of the library's message."""
    inside = text.partition("[")[2].partition("]")[0]
    return ", ".join(part.strip().strip("'\"") for part in inside.split(",")[:20])
