"""One split of a hub dataset: the ``datasets`` library downloads it, and reads formats that this project does not read."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_contract import reasons
from finetune_stages.sdk import Context, StageError
from finetune_stages.sdk.fault import first_line
from finetune_stages.sources.background import folder_size, in_background
from finetune_stages.sources.formats import compression
from finetune_stages.sources.hub import Repository, token
from finetune_stages.sources.json_lines import OpenedRows
from finetune_stages.sources.progress import ProgressCounter

from .arrow_rows import text_columns, write_arrow_rows
from .files import Files
from .source_file import DataFile
from .table_size import measure, table_kind

if TYPE_CHECKING:
    from datasets import DatasetBuilder, DownloadManager

_MODULES = "datasets.packaged_modules."
_CSV_OPTIONS = frozenset(
    ("name", "version", "data_dir", "data_files", "description", "features", "sep", "delimiter", "chunksize")
)
"""Options of the library's reader of CSV that the reader of this project has, too, or does not need."""


@dataclass(frozen=True)
class HubSplit:
    """A split of a dataset.

    Attributes:
        builder: the library's builder, configured for this split only.
        cache: the library's download folder.
        target: file that the rows are written to.
    """

    repository: Repository
    builder: DatasetBuilder
    name: str
    cache: Path
    target: Path
    context: Context

    def read(self, choose: Callable[[int], Sequence[int]]) -> OpenedRows:
        """Download the files and write the selected rows.

        Raises:
            StageError: ``DatasetEmpty``, ``DatasetUnreadable``. Exceptions of the library propagate.
        """
        return self._read_files(choose) if self._is_plain() else self._read_table(choose)

    def _is_plain(self) -> bool:
        """Return whether this project's readers read the files: formats that they know, with default options.

        The library infers one type per column of JSON and gives every object the keys of all others; in CSV, it takes ``NA`` and ``None``
        for missing values.
        """
        config, kind = self.builder.config, _module(self.builder)
        if kind == "json":
            return config.field is None and config.encoding.lower().replace("-", "") == "utf8"
        if kind == "csv":
            default = type(config)()
            stated = (one.name for one in fields(config) if getattr(config, one.name) != getattr(default, one.name))
            return len(config.sep) == 1 and set(stated) <= _CSV_OPTIONS
        if kind == "parquet":
            return config.columns is None and config.filters is None
        return kind == "arrow"

    def _read_files(self, choose: Callable[[int], Sequence[int]]) -> OpenedRows:
        delimiter = self.builder.config.sep if _module(self.builder) == "csv" else None
        files = [DataFile(path, name, delimiter) for path, name in self._download(self._fetched)]
        empty = f"{self.repository.id}: split {self.name} has no rows; set another dataset.split."
        return Files(files, self.target.with_suffix(""), self.context).open(choose, empty)

    def _fetched(self, manager: DownloadManager) -> list[tuple[Path, str]]:
        """Return the downloaded files, and those in archives, each with its name in messages.

        Raises:
            StageError: ``DatasetUnreadable``: an archive is damaged.
        """
        files = [str(file) for file in self.builder.config.data_files[self.name]]
        found: list[tuple[Path, str]] = []
        for file, path in zip(files, map(Path, manager.download(files)), strict=True):
            name = f"{self.repository.id}/{path_in_repository(file)}"
            with path.open("rb") as stream:
                is_compressed = compression(stream.read(8)) is not None  # unpacked when it is read
            folder = path if is_compressed else _extracted(manager, path, name)
            if folder.is_dir():
                inside = sorted(each for each in folder.rglob("*") if each.is_file())
                found += [(each, f"{name}/{each.relative_to(folder)}") for each in inside]
            else:
                found.append((folder, name))
        return found

    def _read_table(self, choose: Callable[[int], Sequence[int]]) -> OpenedRows:
        self._require_usual_sizes()
        self._download(lambda manager: self.builder.download_and_prepare(dl_manager=manager, verification_mode="no_checks"))
        dataset, notes = text_columns(self.builder.as_dataset(split=self.name), self.repository.id)
        numbers = self._chosen(len(dataset), choose)
        return OpenedRows(write_arrow_rows(dataset, numbers, self.target, self._counter(numbers)), len(dataset), notes)

    def _require_usual_sizes(self) -> None:
        """Reject files that decode to very much more than their size, and let the library decode few rows at a time."""
        files = [str(file) for file in self.builder.config.data_files[self.name]]
        batches = []
        for file, path in zip(files, self._download(lambda manager: manager.download(files)), strict=True):
            with Path(path).open("rb") as stream:
                kind = table_kind(stream.read(8))
            if kind:
                batches.append(measure(Path(path), kind, f"{self.repository.id}/{path_in_repository(file)}").batch_rows)
        if batches and hasattr(self.builder.config, "batch_size"):
            self.builder.config.batch_size = min(batches)

    def _download(self, work: Callable[[DownloadManager], Any]) -> Any:
        """Return the result of ``work``, called with the library's download manager, and report progress."""
        from datasets import DownloadConfig, DownloadManager

        config = DownloadConfig(
            cache_dir=str(self.cache / "downloads"), use_etag=False, token=token(), storage_options=self.builder.storage_options
        )
        manager = DownloadManager(
            dataset_name=self.builder.dataset_name,
            base_path=self.builder.base_path,
            download_config=config,
            record_checksums=False,
        )
        files = self.builder.config.data_files[self.name]
        total = sum(self.repository.sizes.get(path_in_repository(file), 0) for file in files)
        counter, before = (
            ProgressCounter(self.context, f"downloading {self.repository.id}", total, 0, 50),
            folder_size(self.cache.parent),
        )
        return in_background(lambda: work(manager), lambda: counter.at(folder_size(self.cache.parent) - before))

    def _chosen(self, total: int, choose: Callable[[int], Sequence[int]]) -> Sequence[int]:
        if not total:
            raise StageError(
                reasons.DATASET_EMPTY, f"{self.repository.id}: split {self.name} has no rows; set another dataset.split."
            )
        return choose(total)

    def _counter(self, numbers: Sequence[int]) -> ProgressCounter:
        return ProgressCounter(self.context, f"reading {self.repository.id}", len(numbers), 50, 60, rows=True)


def _module(builder: DatasetBuilder) -> str:
    """Return the name of the library's module that reads the files: json, csv, parquet, and others."""
    return next((each.__module__.rpartition(".")[2] for each in type(builder).__mro__ if _MODULES in each.__module__), "")


def _extracted(manager: DownloadManager, path: Path, name: str) -> Path:
    """Return the folder with the files of an archive; ``path`` itself if it is none."""
    try:
        return Path(manager.extract(str(path)))
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # that is a position before the beginning
            raise  # an error of the disk
        raise StageError(
            reasons.DATASET_UNREADABLE, f"{name}: is a damaged archive ({first_line(error, 200).rstrip('.')}); upload it again."
        ) from error


def path_in_repository(file: str) -> str:
    """Return the path of a file that the library calls ``hf://datasets/<id>@<commit>/<path>``."""
    return file.partition("@")[2].partition("/")[2]
