"""Rendered conversations of stage *tokenization*, with the positions of the answers.

A pod of training can write to the workspace, so only files with the digest that stage *tokenization* reported are scored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_contract import reasons
from finetune_contract.codec import decode
from finetune_contract.documents import EvaluationInputs
from finetune_contract.result import TokenizationOutputs
from finetune_contract.workspace import HOLDOUT
from finetune_stages.chat.rendered_rows import passages_digest
from finetune_stages.chat.task_rows import chat_files, own_roots
from finetune_stages.sdk import Context, Seal, StageError, read_seal
from finetune_stages.sdk.identity import read_result
from finetune_stages.sdk.safe_files import read_bounded
from finetune_stages.sdk.workspace import SealedFile, file_sha256

Row = dict[str, Any]
"""``row`` and ``line`` in the source, and ``passages``, each with ``text`` and ``answers`` (half-open character ranges)."""


@dataclass(frozen=True)
class RowFile:
    """A file of rendered rows.

    Attributes:
        reported: size and SHA-256 that stage *tokenization* reported; ``None`` if no control plane started this program.
    """

    path: Path
    reported: SealedFile | None = None

    @property
    def sha256(self) -> str:
        """SHA-256 of the rows that are scored."""
        return self.reported.sha256 if self.reported else file_sha256(self.path)


def chat_tasks(context: Context, inputs: EvaluationInputs) -> dict[str, RowFile]:
    """Return the files of rendered rows by task: the held-out rows, and tasks that are files of chat rows.

    Raises:
        StageError: ``DatasetNotFound``: there are no rendered rows; ``ResultChanged``: they are not those that were reported.
    """
    layout = context.layout
    own = chat_files(own_roots(inputs.task_files), inputs.tasks)
    names: Sequence[str] = (*([HOLDOUT] if inputs.holdout else []), *own)
    if not names:
        return {}
    tokens = context.path(layout.tokens)
    seal = read_seal(tokens)
    if seal is None:
        other = "" if own else ", or set evaluation.holdout to false"
        raise StageError(
            reasons.DATASET_NOT_FOUND, f"{layout.tokens}: it is not in the workspace; rerun from stage evaluation{other}."
        )
    paths = {name: context.path(layout.passages(name)) for name in names}
    if context.reads is None:
        return {name: RowFile(path) for name, path in paths.items() if path.is_file()}
    _require_reported(context, seal)
    files = {name: seal.files.get(str(path.relative_to(tokens))) for name, path in paths.items()}
    return {name: RowFile(paths[name], file) for name, file in files.items() if file is not None}


def _require_reported(context: Context, seal: Seal) -> None:
    result = read_result(context, context.path(context.layout.newest_result("tokenization")), "tokenization")
    reported = decode(TokenizationOutputs, result.outputs, "outputs").passages_digest
    found = passages_digest(seal)
    if found != reported:
        raise StageError(
            reasons.RESULT_CHANGED,
            f"{context.layout.tokens}: the seal of the rendered rows has digest {found[:12]}, and stage tokenization reported {reported[:12]};"
            " rerun from stage evaluation.",
        )


def read_passages(file: RowFile) -> list[Row]:
    """Return the rows of a file. The bytes that are compared with the reported digest are those that are parsed.

    Raises:
        StageError: ``ResultChanged``: the file is not the reported one; ``DatasetUnreadable``: stage *tokenization* did not write it.
    """
    try:
        content = _content(file)
        rows = [json.loads(line) for line in content.split(b"\n") if line]
        for row in rows:
            for passage in row["passages"]:
                _ = passage["text"][0], [(int(start), int(end)) for start, end in passage["answers"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise StageError(
            reasons.DATASET_UNREADABLE, f"{file.path}: it cannot be read ({error}); rerun from stage evaluation."
        ) from error
    return rows


def _content(file: RowFile) -> bytes:
    """Return the bytes of a file. A training program may have left another one, or a pipe that never ends."""
    if file.reported is None:
        return file.path.read_bytes()
    with suppress(OSError):
        content = read_bounded(file.path, file.reported.size)
        if hashlib.sha256(content).hexdigest() == file.reported.sha256:
            return content
    raise StageError(
        reasons.RESULT_CHANGED, f"{file.path}: it is not the file that stage tokenization reported; rerun from stage evaluation."
    )


def answers(row: Row) -> list[str]:
    """Return the scored texts."""
    return [passage["text"][start:end] for passage in row["passages"] for start, end in passage["answers"]]
