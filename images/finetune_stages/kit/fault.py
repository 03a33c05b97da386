"""How a stage program says that it failed, and what an unexpected exception is taken for."""

from __future__ import annotations

import errno

from finetune_contract import reasons
from finetune_contract.codec import DocumentError
from finetune_contract.reasons import Reason


class StageError(Exception):
    """A failure with a reason from the closed list and one sentence: what, where and how to mend it."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Interrupted(BaseException):
    """SIGTERM arrived. Not an ``Exception``: no library may swallow it."""


def classify(error: BaseException) -> StageError:
    """The fault that an exception stands for; what is not known is a crash that names the exception."""
    if isinstance(error, StageError):
        return error
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        return StageError(reasons.INTERRUPTED, "The stage was asked to stop before it was done.")
    if isinstance(error, DocumentError):
        return StageError(reasons.BAD_DOCUMENT, str(error))
    for link in causes(error):
        if isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT):
            return StageError(reasons.WORKSPACE_FULL, f"No room is left for {link.filename or 'what the stage writes'}.")
        if isinstance(link, MemoryError):
            return StageError(reasons.HOST_OUT_OF_MEMORY, "The machine's memory was not enough.")
        # torch's class by name: this module imports nothing that an image may lack.
        if type(link).__name__ in ("OutOfMemoryError", "AcceleratorError") and "out of memory" in str(link).lower():
            return StageError(reasons.GPU_OUT_OF_MEMORY, first_line(link))
    return StageError(reasons.CRASHED, f"{type(error).__name__}: {first_line(error)}")


def first_line(error: BaseException, limit: int = 500) -> str:
    """The first line of an exception's text, shortened."""
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__)[:limit]


def causes(error: BaseException) -> list[BaseException]:
    """The exception and what it was raised from, the outermost first."""
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__ or link.__context__
    return links
