"""Rules for the data of tasks: files of the ConfigMap, allowed web servers and the hub, and nothing else.

A pod of training can write to the workspace. If it could provide the right answers of a task, scores would prove nothing.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_contract import reasons
from finetune_contract.hosts import HUB
from finetune_stages.sdk import StageError
from finetune_stages.sdk.hosts import require_allowed

if TYPE_CHECKING:
    from finetune_stages.sources.task_files import Definition

_FIELDS = ("dataset_path", "dataset_name", "dataset_kwargs", "use_prompt", "metric")
"""Keys of a definition from which lm-eval takes locations of data, prompts and metrics."""
_CHARACTERS = ("sep", "delimiter", "quotechar", "escapechar", "comment", "thousands", "decimal", "lineterminator")
"""Keys of ``dataset_kwargs`` with characters of a format."""
_ARCHIVE = re.compile(r"^(zip|tar|gzip|bz2|xz|zstd|lz4)://")
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_LOCAL = re.compile(r"^(file|local):(//)?")
_GLOB = re.compile(r"[*?\[{]")


def data_directory(roots: Sequence[Path]) -> Path:
    """Return the directory that relative data files are relative to: that of the task files, or an empty one."""
    return roots[0] if roots else Path(tempfile.mkdtemp())


def require_own_data(workspace: Path, roots: Sequence[Path], definitions: Iterable[Definition]) -> None:
    """Check the locations of all data: a user's task reads files of ``roots`` only, no task reads the workspace.

    Raises:
        StageError: ``TaskInvalid``, ``HostNotAllowed``.
    """
    for definition in definitions:
        own = any(definition.path.is_relative_to(root) for root in roots)
        field = f"evaluation.{'taskFiles' if own else 'tasks'}: {definition.path.name}"
        for key, text in _texts(definition.config):
            _Location(f"{field}: {key}", text, own, workspace, roots).check()


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield key and text of every possible location in a definition, also in tasks that a group defines inline."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if key and name not in _CHARACTERS:
                yield from _texts(item, key if key.endswith(".data_files") else f"{key}.{name}")
            elif not key:
                yield from _texts(item, name if name in _FIELDS else "")
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, str) and key == "use_prompt":
        name = value.partition(":")[0]
        if ".yaml" in name:  # lm-eval opens a file of this name
            yield key, name
    elif isinstance(value, str) and key:
        yield key, value


@dataclass(frozen=True)
class _Location:
    """A text in a task's definition that may be the location of data, as the library ``datasets`` reads it.

    Attributes:
        subject: file and key, for messages.
        own: whether a file of the user defines the task.
        roots: the directories of the user's files.
    """

    subject: str
    text: str
    own: bool
    workspace: Path
    roots: Sequence[Path]

    def check(self) -> None:
        """Check the location.

        Raises:
            StageError: ``TaskInvalid``, ``HostNotAllowed``.
        """
        *archives, location = self.text.split("::")
        if not all(map(_ARCHIVE.match, archives)):
            raise self._unsupported()
        local = _LOCAL.sub("", location)
        if location.startswith(("http://", "https://")):
            require_allowed(location, "hosts", self.subject)
        elif location.startswith("hf://"):
            require_allowed(os.environ.get("HF_ENDPOINT") or HUB, "hubs", self.subject)
        elif _SCHEME.match(local):
            raise self._unsupported()
        elif not self._may_read(local):
            raise StageError(
                reasons.TASK_INVALID,
                f"{self.subject}: {self.text} is not a file of the ConfigMap of evaluation.taskFiles; add the file to it and write its key.",
            )

    def _may_read(self, path: str) -> bool:
        """Return whether a task may read a local path or a pattern of paths."""
        pattern = _GLOB.search(path)
        if self.own and (path.startswith("~") or (pattern and ".." in path[pattern.start() :].split("/"))):
            return False
        fixed = Path(f"{path[: pattern.start()]}x").parent if pattern else Path(path)
        base = self.roots[0] if self.roots else Path(tempfile.gettempdir())
        try:
            resolved = (base / fixed).resolve()
        except (ValueError, OSError):  # nothing can open it
            return True
        if any(resolved.is_relative_to(root.resolve()) for root in self.roots):
            return True
        volume = self.workspace.resolve()
        in_workspace = resolved.is_relative_to(volume) or (pattern is not None and volume.is_relative_to(resolved))
        return not self.own and not in_workspace

    def _unsupported(self) -> StageError:
        return StageError(
            reasons.TASK_INVALID,
            f"{self.subject}: {self.text} is a location that tasks cannot read; use a key of the ConfigMap of evaluation.taskFiles,"
            " http(s):// or hf://.",
        )
