"""User-defined tasks: data is read row by row, and every document is validated before the model is loaded.

lm-eval validates the first document only, and mishandles others silently: a label without a choice counts as a wrong answer, a null is
rendered as ``None``, and its JSON loader converts text that looks like a date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from lm_eval.api.task import ConfigurableTask

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sdk.bounded import LimitExceeded, bounded
from finetune_stages.sdk.fault import first_line
from finetune_stages.sources.json_lines import JsonLines, index_rows
from finetune_stages.sources.json_text import json_fault, parse

from .documents import document_fault, template_fault
from .questions import texts

FILTER_SECONDS = 60.0
"""Greatest duration of the filters of a task, plus :data:`_ANSWER_SECONDS` for each answer. A pattern can take longer than any run."""
_ANSWER_SECONDS = 0.1


@dataclass(frozen=True)
class DataFile:
    """A file of a split with its name in the task, and its rows."""

    name: str
    rows: JsonLines


class OwnTask(ConfigurableTask):  # type: ignore[misc]
    """A user's task. The first ``limit`` documents are used, or all.

    Raises:
        StageError: ``TaskInvalid``, with the task, the file, the row and the field.
    """

    def __init__(self, config: dict[str, Any], limit: int | None = None) -> None:
        self._limit = limit
        self.files: dict[str, list[DataFile]] = {}
        source = (config.get("metadata") or {}).get("config_source", "inline")
        self._subject = f"Task {config['task']}" + ("" if source == "inline" else f" ({source})")
        try:
            super().__init__(config=config)
        except StageError:
            raise
        except Exception:
            if getattr(self, "features", None) is not None:  # then the first document is the cause
                self._set_kinds_from_first_document()
                self._check()
            raise
        self._check()

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **more: Any) -> None:
        """Read JSON files with this project's reader, which preserves text, and other data with the library."""
        splits = _json_files(self.config)
        if splits is None:
            super().download(dataset_kwargs, **more)
        else:
            self.dataset = datasets.DatasetDict({split: self._read(split, files) for split, files in splits.items()})

    def apply_filters(self) -> Any:
        """Apply the filters, within a limit of time.

        Raises:
            StageError: ``TaskInvalid``.
        """
        seconds = FILTER_SECONDS + _ANSWER_SECONDS * len(self.instances or ())
        try:
            return bounded(seconds, super().apply_filters)
        except LimitExceeded as limit:
            raise StageError(reasons.TASK_INVALID, f"{self._subject}: filter_list {limit}; simplify its patterns.") from limit

    def process_results(self, doc: Any, results: Any) -> Any:
        """Return the scores of a document, within a limit of time; a function of the user has none.

        Raises:
            StageError: ``TaskInvalid``.
        """
        score = super().process_results
        if callable(self.config.process_results):
            return score(doc, results)
        try:
            return bounded(FILTER_SECONDS, lambda: score(doc, results))
        except LimitExceeded as limit:
            raise StageError(
                reasons.TASK_INVALID, f"{self._subject}: metric_list {limit} for one document; simplify its patterns."
            ) from limit

    def label(self, split: str | None, position: int) -> str:
        """Return the name of a document in messages."""
        if self.config.process_docs is None:
            for file in self.files.get(split or "", ()):
                if position < len(file.rows):
                    return f"{file.rows.label(position)} of {file.name}"
                position -= len(file.rows)
            return f"row {position + 1}"
        return f"document {position + 1} of process_docs"

    def failed(self, place: str, problem: str, remedy: str = "correct it") -> StageError:
        """Return the error for a document."""
        return StageError(reasons.TASK_INVALID, f"{self._subject}, {place}: {problem}; {remedy}.")

    def _set_kinds_from_first_document(self) -> None:
        """Set the properties that lm-eval derives from the first document, after it failed there."""
        try:
            self.multiple_input = int(isinstance(self.doc_to_text(self.task_docs[0]), int))
            self.multiple_target = int(isinstance(self.doc_to_target(self.task_docs[0]), list))
        except Exception:  # noqa: BLE001, S110 - the check of the document names it
            pass

    def _check(self) -> None:
        if not len(self.task_docs):
            raise StageError(reasons.TASK_INVALID, f"{self._subject}: its data has no rows; add some.")
        for field in ("doc_to_text", "doc_to_choice", "doc_to_target"):
            problem = template_fault(self, field)
            if problem:
                raise StageError(reasons.TASK_INVALID, f"{self._subject}: {problem}; correct it.")
        self.check_documents(islice(self.task_docs, self._limit), self.config.test_split or self.config.validation_split)

    def check_documents(self, documents: Iterable[Any], split: str | None) -> None:
        """Check that every document can be rendered and scored.

        Raises:
            StageError: ``TaskInvalid``.
        """
        for position, document in enumerate(documents):
            problem = document_fault(self, document)
            if problem:
                raise self.failed(self.label(split, position), problem)

    def _read(self, split: str, files: Sequence[Path]) -> datasets.Dataset:
        rows = [row for path in files for row in self._rows(split, path)]
        names = ", ".join(map(str, files))
        if not rows:
            raise StageError(reasons.TASK_INVALID, f"{self._subject}, {names}: its data has no rows; add some.")
        columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)}
        try:
            return datasets.Dataset.from_dict(columns, on_mixed_types="use_json")
        except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
            detail = f"{type(error).__name__}: {first_line(error, 200)}"
            raise StageError(
                reasons.TASK_INVALID,
                f"{self._subject}, {names}: its rows cannot be converted to a table ({detail}); use one type per column.",
            ) from error

    def _rows(self, split: str, path: Path) -> list[dict[str, Any]]:
        try:
            file = DataFile(str(path), index_rows(path, str(path), lambda _more: None))
        except StageError as error:
            raise StageError(reasons.TASK_INVALID, f"{self._subject}: {error.message}") from error
        self.files.setdefault(split, []).append(file)
        return list(self._objects(file))

    def _objects(self, file: DataFile) -> Iterator[dict[str, Any]]:
        for position, text in enumerate(file.rows.texts()):
            place = f"{file.rows.label(position)} of {file.name}"
            try:
                row = parse(text)
            except ValueError as error:
                raise StageError(
                    reasons.TASK_INVALID, f"{self._subject}: {place} {json_fault(error, text)}; write one object per line."
                ) from error
            if not isinstance(row, dict):
                raise self.failed(place, "it is not an object", "write one object per line")
            yield row


def _json_files(config: Any) -> Mapping[str, list[Path]] | None:
    """Return the JSON files of each split; ``None`` if the task uses other data. The library reports missing files."""
    arguments = config.dataset_kwargs
    if config.dataset_path != "json" or config.dataset_name or config.custom_dataset or not isinstance(arguments, dict):
        return None
    if set(arguments) - {"trust_remote_code"} != {"data_files"}:
        return None
    data = arguments["data_files"]
    splits = data if isinstance(data, dict) else {"train": data}
    files = {str(split): [Path(name) for name in texts(names)] for split, names in splits.items()}
    plain = all(paths and all(path.is_file() for path in paths) for paths in files.values())
    return files if files and plain else None
