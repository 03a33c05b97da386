"""Context of a stage's work: its input document, absolute paths, its attempt, publishing and progress."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from finetune_contract import progress as progress_lines
from finetune_contract import reasons
from finetune_contract.codec import decode
from finetune_contract.documents import ReadResult, Scalar, StageDocument
from finetune_contract.progress import Progress, unfinished
from finetune_contract.result import LossPoint
from finetune_contract.workspace import Attempt, RunLayout

from .fault import StageError
from .safe_files import read_bounded
from .workspace import link_directory, publish_directory, write_file

T = TypeVar("T")

NO_DIGEST = "0" * 64
"""Digest of the inputs if ``FINETUNE_INPUTS_DIGEST`` is not set. No result is stored or reused under it."""

_CURRENT_LIMIT = 64
"""Bytes of the file with the current attempt."""

REPORT_SECONDS = 0.5
"""Seconds between two printed progress lines, at least."""


@dataclass(frozen=True)
class Finished:
    """Result of a stage's work, without the parts that the SDK adds.

    Attributes:
        outputs: an instance of one of the dataclasses of :mod:`finetune_contract.result`.
        warnings: sentences for the user about a stage that succeeded.
        fingerprint: what the result depends on in addition to the inputs' digest, for example a commit or a digest;
            ``None`` if a change cannot be detected, so that no other run may reuse the result.
        cached: workspace paths of cache entries, by the name of the published directory that has the same content.
    """

    outputs: Any
    metrics: dict[str, float] = field(default_factory=dict)
    history: tuple[LossPoint, ...] = ()
    message: str = ""
    warnings: tuple[str, ...] = ()
    reused: bool = False
    fingerprint: dict[str, Scalar] | None = field(default_factory=dict)
    cached: dict[str, str] = field(default_factory=dict)


@dataclass
class Context:
    """One running attempt of a stage.

    Attributes:
        workspace: the directory that the volume is mounted at.
        rank: rank of this process among all processes of the stage; 0 if there is only one.
        inputs_digest: identifies the result; results for other inputs are not reused.
        reads: identity of the results of earlier stages by stage; ``None`` if no control plane started the program.
        first: results of this round that the program finds are not those of an earlier attempt.
        on_report: is called with each report that is printed.
    """

    document: StageDocument
    workspace: Path
    attempt: Attempt
    inputs_digest: str
    rank: int = 0
    reads: Mapping[str, ReadResult] | None = None
    first: bool = False
    last_progress: Progress | None = None
    on_report: Callable[[Progress], None] | None = None
    _printed: float = 0.0
    _print: Callable[[str], None] = print

    @property
    def layout(self) -> RunLayout:
        """The run's paths, relative to the workspace."""
        return self.document.run.layout

    def inputs(self, cls: type[T]) -> T:
        """Return the stage's inputs as an instance of ``cls``.

        Raises:
            DocumentError: The inputs do not have the form of ``cls``.
        """
        return decode(cls, self.document.inputs, "inputs")

    def path(self, relative: str) -> Path:
        """Return the absolute path for a workspace-relative one."""
        return self.workspace / relative

    def scratch(self) -> Path:
        """Return this attempt's own folder, emptied. It holds unfinished work until that is published by rename."""
        folder = self.path(self.layout.attempt(self.document.stage, self.attempt))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def become_current(self) -> None:
        """Make this attempt the one that may publish, unless a newer attempt already is.

        Raises:
            StageError: ``Superseded``.
        """
        if self._current().order > self.attempt.order:
            raise self._superseded()
        write_file(self._current_file, f"{self.attempt}\n".encode())

    def publish(self, source: Path, target: str) -> Path:
        """Move a sealed directory of this attempt to ``target`` (workspace-relative), if this attempt is still the current one.

        Raises:
            StageError: ``Superseded``: a newer attempt has started, for example while this one's node was unreachable.
        """
        self.require_current()
        path = self.path(target)
        publish_directory(source, path)
        return path

    def publish_file(self, source: Path, target: str) -> Path:
        """Publish a file in the same way.

        Raises:
            StageError: ``Superseded``.
        """
        self.require_current()
        path = self.path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        source.replace(path)
        return path

    def publish_link(self, source: Path, target: str) -> Path:
        """Publish a link: ``target`` points to ``source``, a sealed and shared directory such as a cache entry.

        Raises:
            StageError: ``Superseded``.
        """
        self.require_current()
        path = self.path(target)
        link_directory(source, path)
        return path

    def require_current(self) -> None:
        """Check that this attempt is still the current one.

        Raises:
            StageError: ``Superseded``.
        """
        if self._current() != self.attempt:
            raise self._superseded()

    def report(self, progress: Progress, force: bool = False) -> None:
        """Report progress. A report within :data:`REPORT_SECONDS` of the last one is stored but not printed, unless ``force`` is set.

        The percentage is at most 99, since the stage has not ended, and it never falls.
        """
        now = time.time()
        self.last_progress = replace(unfinished(progress, self.last_progress), time=int(now))
        if force or now - self._printed >= REPORT_SECONDS:
            self._printed = now
            self._print(progress_lines.line(self.last_progress))
            if self.on_report:
                self.on_report(self.last_progress)

    @property
    def _current_file(self) -> Path:
        return self.path(self.layout.current(self.document.stage))

    def _current(self) -> Attempt:
        try:
            return Attempt.parse(read_bounded(self._current_file, _CURRENT_LIMIT).decode().strip())
        except (FileNotFoundError, ValueError):
            return Attempt(0, 0)

    def _superseded(self) -> StageError:
        return StageError(
            reasons.SUPERSEDED, f"attempt {self.attempt}: attempt {self._current()} has replaced it; nothing was published."
        )
