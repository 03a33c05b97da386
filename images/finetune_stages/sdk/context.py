"""What a stage's work is given: its document, absolute paths, its attempt, and a way to report."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from finetune_contract import progress as progress_lines
from finetune_contract import reasons
from finetune_contract.codec import decode
from finetune_contract.documents import Scalar, StageDocument
from finetune_contract.progress import Progress
from finetune_contract.result import LossPoint
from finetune_contract.workspace import Attempt, RunLayout

from .fault import StageError
from .workspace import link_directory, publish_directory, write_file

T = TypeVar("T")

NO_DIGEST = "0" * 64
"""The digest of the inputs where ``FINETUNE_INPUTS_DIGEST`` is not set: it names no result that another run may have."""

REPORT_SECONDS = 0.5
"""Progress is printed at most that often."""


@dataclass(frozen=True)
class Finished:
    """What a stage's work returns when it is done: the parts of a result that are its own.

    Attributes:
        outputs: one of the dataclasses of :mod:`finetune_contract.result`.
        warnings: sentences that the user must see although the stage succeeded.
        depends_on: what the result depends on beyond the inputs' digest, as a later run can find it again (a commit, a digest);
            ``None`` if something may change unseen: then no other run takes the result over.
        cached: by name of what was published in the run's folder, where in the workspace the cache keeps the same.
    """

    outputs: Any
    metrics: dict[str, float] = field(default_factory=dict)
    history: tuple[LossPoint, ...] = ()
    message: str = ""
    warnings: tuple[str, ...] = ()
    reused: bool = False
    depends_on: dict[str, Scalar] | None = field(default_factory=dict)
    cached: dict[str, str] = field(default_factory=dict)


@dataclass
class Context:
    """One attempt of one stage at work.

    Attributes:
        workspace: the directory that the volume is mounted at.
        rank: number of this process among all processes of the stage, 0 for those with one.
        inputs_digest: names the result; results of other inputs are not ours.
    """

    document: StageDocument
    workspace: Path
    attempt: Attempt
    inputs_digest: str
    rank: int = 0
    last_progress: Progress | None = None
    _printed: float = 0.0
    _print: Callable[[str], None] = print

    @property
    def layout(self) -> RunLayout:
        """The run's paths, relative to the workspace."""
        return self.document.run.layout

    def inputs(self, cls: type[T]) -> T:
        """Return the stage's inputs as ``cls``.

        Raises:
            DocumentError: they do not have that form.
        """
        return decode(cls, self.document.inputs, "inputs")

    def path(self, relative: str) -> Path:
        """Return a workspace-relative path, absolute."""
        return self.workspace / relative

    def scratch(self) -> Path:
        """This attempt's own folder, empty: unfinished work is there until it is published by rename."""
        folder = self.path(self.layout.attempt(self.document.stage, self.attempt))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def become_current(self) -> None:
        """Make this attempt the one that may publish, unless a newer one has.

        Raises:
            StageError: ``Superseded``.
        """
        if self._current().order > self.attempt.order:
            raise self._superseded()
        write_file(self._current_file, f"{self.attempt}\n".encode())

    def publish(self, source: Path, target: str) -> Path:
        """Move a sealed directory of this attempt to ``target`` (workspace-relative), if this attempt still is the current one.

        Raises:
            StageError: ``Superseded``: a newer attempt took over, for example while this one's node was cut off.
        """
        self.require_current()
        path = self.path(target)
        publish_directory(source, path)
        return path

    def publish_file(self, source: Path, target: str) -> Path:
        """Return the same with a file.

        Raises:
            StageError: ``Superseded``.
        """
        self.require_current()
        path = self.path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        source.replace(path)
        return path

    def publish_link(self, source: Path, target: str) -> Path:
        """Return the same with a link: ``target`` points to ``source``, a sealed directory that is shared (a cache entry).

        Raises:
            StageError: ``Superseded``.
        """
        self.require_current()
        path = self.path(target)
        link_directory(source, path)
        return path

    def require_current(self) -> None:
        """Check that this attempt may still publish.

        Raises:
            StageError: ``Superseded``.
        """
        if self._current() != self.attempt:
            raise self._superseded()

    def report(self, progress: Progress, force: bool = False) -> None:
        """Tell how far the work is. Cheap: what comes too soon after the last report is kept but not printed."""
        now = time.time()
        self.last_progress = replace(progress, time=int(now))
        if force or now - self._printed >= REPORT_SECONDS:
            self._printed = now
            self._print(progress_lines.line(self.last_progress))

    @property
    def _current_file(self) -> Path:
        return self.path(self.layout.current(self.document.stage))

    def _current(self) -> Attempt:
        try:
            return Attempt.parse(self._current_file.read_text().strip())
        except (FileNotFoundError, ValueError):
            return Attempt(0, 0)

    def _superseded(self) -> StageError:
        return StageError(
            reasons.SUPERSEDED, f"Attempt {self._current()} took over from attempt {self.attempt}; nothing was published."
        )
