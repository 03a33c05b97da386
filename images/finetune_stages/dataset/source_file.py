"""Files with rows: their digests, and whether they changed while they were read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_contract import reasons
from finetune_contract.codec import digest
from finetune_stages.sdk import StageError
from finetune_stages.sdk.workspace import file_sha256
from finetune_stages.sources.file_names import delimiter_of


@dataclass(frozen=True)
class DataFile:
    """A file with rows.

    Attributes:
        name: in messages.
        delimiter: what separates the cells of CSV and TSV.
    """

    path: Path
    name: str
    delimiter: str | None


@dataclass(frozen=True)
class SourceFile(DataFile):
    """A file whose digest is known.

    Attributes:
        before: status of the file before its digest was computed.
    """

    sha256: str
    before: os.stat_result

    @classmethod
    def read(cls, path: Path, name: str, advance: Callable[[int], object]) -> SourceFile:
        """Return the file with its digest; ``advance`` is called with the number of bytes read."""
        before = path.stat()
        return cls(path, name, delimiter_of(name), file_sha256(path, advance), before)

    @property
    def identity(self) -> str:
        """What the rows depend on: the content and, for CSV and TSV, how the name makes the file be read."""
        return digest([self.sha256, self.delimiter]) if self.delimiter else self.sha256

    def require_unchanged(self) -> None:
        """Check that the file is the one whose digest was computed.

        Raises:
            StageError: ``DatasetChanged``.
        """
        before = self.before
        try:
            now = self.path.stat()
        except FileNotFoundError as error:
            raise StageError(reasons.DATASET_CHANGED, f"{self.name}: was removed while it was read; restore it.") from error
        if (now.st_size, now.st_mtime_ns, now.st_ino) != (before.st_size, before.st_mtime_ns, before.st_ino):
            raise StageError(
                reasons.DATASET_CHANGED, f"{self.name}: changed while it was read; rerun when no process writes to it."
            )


def content_digest(files: Sequence[SourceFile]) -> str:
    """Return the SHA-256 of a file; of several files, the digest of theirs."""
    return files[0].identity if len(files) == 1 else digest([file.identity for file in files])
