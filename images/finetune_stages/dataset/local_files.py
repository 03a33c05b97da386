"""Files on this machine or on the volume of a claim: one, those of a directory, or those that match a glob."""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path

from finetune_stages.sdk import StageError
from finetune_stages.sources.claims import LocalSource
from finetune_stages.sources.file_names import has_wildcards
from finetune_stages.sources.local import require_file, require_readable
from finetune_stages.sources.origin import Origin

from .several_files import MOST_FILES, data_below, require_few

_MOST_SEEN = 10 * MOST_FILES


@dataclass(frozen=True)
class LocalFile:
    """A file that can be read.

    Attributes:
        name: its path in messages.
    """

    path: Path
    name: str


class LocalLocation(LocalSource):
    """Where files of data are: a file, a directory or a pattern."""

    @property
    def pattern(self) -> str:
        """The path relative to the root of the claim or of this machine."""
        return str(self.path.relative_to(self.root or "/"))

    def find(self, origin: Origin) -> tuple[list[LocalFile], tuple[str, ...]]:
        """Return the files in order, and warnings about the files that are left out.

        Raises:
            StageError: ``origin.not_found``, ``origin.forbidden``; ``DatasetUnreadable``: a directory has files of several splits.
        """
        warnings: tuple[str, ...] = ()
        if os.path.isdir(self.path):  # noqa: PTH112 - Path.is_dir raises in a directory that may not be read
            require_readable(self.path, origin, os.R_OK | os.X_OK)
            location = f"{self.name.rstrip('/')}/"
            names = [str(path.relative_to(self.path)) for path in _files_below(self.path, location, origin)]
            chosen, warnings = data_below(names, location, origin)
            files = [LocalFile(self.path / name, f"{location}{name}") for name in chosen]
        elif has_wildcards(self.pattern) and not os.path.lexists(self.path):
            files = self._matching(origin)
        else:
            files = [LocalFile(self.path, self.name)]
        for file in files:
            self.require_inside(file.path, file.name, origin)
            require_file(file.path, file.name, origin)
        return files, warnings

    def _matching(self, origin: Origin) -> list[LocalFile]:
        root = self.root or Path("/")
        matches = glob.iglob(self.pattern, root_dir=root, recursive=True)  # noqa: PTH207 - Path.glob finds no files for **
        found = sorted(root / path for path in matches if (root / path).is_file())
        if not found:
            raise StageError(
                origin.not_found,
                f"{origin.field}: no file matches {self.name}; correct the pattern (* matches no /, ** does).",
            )
        require_few(len(found), self.name, origin)
        if self.root is None:
            return [LocalFile(path, str(path)) for path in found]
        return [LocalFile(path, f"pvc://{self.root.name}/{path.relative_to(self.root)}") for path in found]


def _files_below(directory: Path, name: str, origin: Origin) -> list[Path]:
    """Return the files below a directory, without those in hidden directories.

    Links to directories are followed. A directory is read once, because a link can lead to a directory that contains it.

    Raises:
        StageError: ``origin.not_found``: there are very many, as in the root of a file system.
    """
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(directory, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116 - the loop has text
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith((".", "_")))
        found += [Path(folder, file) for file in files]
        if len(found) > _MOST_SEEN:
            raise StageError(
                origin.not_found, f"{origin.field}: {name} has more than {_MOST_SEEN:,} files; set a smaller directory."
            )
    return found
