"""One split of a hub dataset: the ``datasets`` library downloads it, and reads it if it is not JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_contract import reasons
from finetune_stages.sdk import Context, StageError
from finetune_stages.sources.background import folder_size, in_background
from finetune_stages.sources.hub import Repository, token
from finetune_stages.sources.json_lines import JsonLines, OpenedRows, gather, index_rows
from finetune_stages.sources.progress import ProgressCounter

from .arrow_rows import text_columns, write_arrow_rows
from .table_size import measure, table_kind

if TYPE_CHECKING:
    from datasets import DatasetBuilder, DownloadManager


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
        return self._read_json(choose) if self._is_plain_json() else self._read_table(choose)

    def _is_plain_json(self) -> bool:
        """Return whether the split has JSON files with default options.

        Arrow infers one type per column and gives every object the keys of all others.
        """
        from datasets.packaged_modules.json.json import Json

        config = self.builder.config
        return isinstance(self.builder, Json) and config.field is None and config.encoding.lower().replace("-", "") == "utf8"

    def _read_json(self, choose: Callable[[int], Sequence[int]]) -> OpenedRows:
        files = [str(file) for file in self.builder.config.data_files[self.name]]
        downloaded = self._download(lambda manager: manager.download_and_extract(files))
        parts: list[JsonLines] = []
        for file, source_uri in zip(files, map(Path, downloaded), strict=True):
            name = f"{self.repository.id}/{path_in_repository(file)}"
            inside = [source_uri] if source_uri.is_file() else sorted(path for path in source_uri.rglob("*") if path.is_file())
            parts.extend(index_rows(path, name, lambda _more: None) for path in inside)
        numbers = self._chosen(sum(map(len, parts)), choose)
        return OpenedRows(gather(parts, numbers, self.target, self._counter(numbers)), sum(map(len, parts)))

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


def path_in_repository(file: str) -> str:
    """Return the path of a file that the library calls ``hf://datasets/<id>@<commit>/<path>``."""
    return file.partition("@")[2].partition("/")[2]
