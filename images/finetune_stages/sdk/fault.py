"""Errors of the stage programs, and their classification of unexpected exceptions."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from pathlib import Path

from finetune_contract import reasons
from finetune_contract.codec import DocumentError
from finetune_contract.crash import crash_message
from finetune_contract.reasons import Reason


class StageError(Exception):
    """A failure with a reason from the closed list and a message: the field or object, what is wrong, what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class AddressNotAllowed(StageError):
    """A connection to an address that the rules of the cluster do not allow.

    Attributes:
        host: the host with this address; the address itself if no name is known.
        kind: of the address, such as ``loopback``.
        listable: whether the configuration of the operator may allow the host.
    """

    def __init__(self, host: str, address: str, kind: str, *, listable: bool = False, subject: str = "") -> None:
        self.host, self.address, self.kind, self.listable = host, address, kind, listable
        article = "an" if kind[0] in "aeiou" else "a"
        found = f"{address} is {article} {kind} address" if host == address else f"host {host} has the {kind} address {address}"
        if listable:
            rule = "which the stages contact only for hosts in allowedHosts; use an allowed host, or have it added there in the operator's configuration"
        else:
            rule = "which the stages do not contact in a cluster; use the name or address of a Service or of another machine"
        super().__init__(reasons.ADDRESS_NOT_ALLOWED, f"{subject or 'network'}: {found}, {rule}.")

    def of(self, subject: str) -> AddressNotAllowed:
        """Return the same fault with the field and its value, for the message."""
        return AddressNotAllowed(self.host, self.address, self.kind, listable=self.listable, subject=subject)


class Interrupted(BaseException):
    """SIGTERM was received. It is not an ``Exception``, so that libraries do not catch it."""


def classify(error: BaseException) -> StageError:
    """Return the stage error for an exception; for an unknown one, ``Crashed`` with the exception's name."""
    if isinstance(error, StageError):
        return error
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        return StageError(reasons.INTERRUPTED, "The stage was stopped before it finished.")
    if isinstance(error, DocumentError):
        return StageError(reasons.BAD_DOCUMENT, str(error))
    for link in causes(error):
        if isinstance(link, AddressNotAllowed):  # a library has wrapped it
            return link
        known = _full_by_number(link) or recognized(_kind(link), str(link))
        if known is not None:
            return known
    return StageError(reasons.CRASHED, crash_message(type(error).__name__, first_line(error), raise_location(error)))


def recognized(kind: str, text: str) -> StageError | None:
    """Return the failure that an exception of any library means, by the name of its class and its text; ``None`` if that is unknown.

    Classes are given by name, because this module must not import packages that an image may lack, and because the exception of another
    process is known by its traceback only.
    """
    return _full(kind, text) or _out_of_memory(kind, text) or _broken_gpu(kind, text)


def _kind(error: BaseException) -> str:
    return MemoryError.__name__ if isinstance(error, MemoryError) else type(error).__name__


def _full_by_number(error: BaseException) -> StageError | None:
    """Return the stage error for the system's own error of a full file system, whatever its text."""
    if not isinstance(error, OSError) or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return _full_memory_volume(str(error)) or _full_volume(error.filename or _output(type(error).__name__, str(error)))


def _full(kind: str, text: str) -> StageError | None:
    """Return the stage error for a full file system: libraries wrap the system's error into exceptions of their own."""
    if not FULL_DISK.search(text):
        return None
    return _full_memory_volume(text) or _full_volume(_output(kind, text))


def _full_memory_volume(text: str) -> StageError | None:
    if "/dev/shm" not in text and "unable to write to file </torch_" not in text:  # noqa: S108 - a name in messages of NCCL and torch
        return None
    message = f"training.sharedMemory: no space is left in /dev/shm ({_first_line(text, 200)}); raise it."
    return StageError(reasons.HOST_OUT_OF_MEMORY, message)


def _full_volume(what: str) -> StageError:
    return StageError(reasons.WORKSPACE_FULL, f"workspace: no space is left for {what}; free space or enlarge the volume.")


def _output(kind: str, text: str) -> str:
    return f"the output of the stage ({kind}: {_first_line(text, 200).rstrip('.')})"


def _out_of_memory(kind: str, text: str) -> StageError | None:
    if kind.endswith(MemoryError.__name__) and not kind.endswith("OutOfMemoryError"):
        return StageError(reasons.HOST_OUT_OF_MEMORY, "The process ran out of memory.")
    if _HOST_ALLOCATION.search(text):
        return StageError(reasons.HOST_OUT_OF_MEMORY, _first_line(text))
    gpu = kind in ("OutOfMemoryError", "AcceleratorError") or "CUDA" in text
    return StageError(reasons.GPU_OUT_OF_MEMORY, _first_line(text)) if gpu and "out of memory" in text.lower() else None


def _broken_gpu(kind: str, text: str) -> StageError | None:
    if not _BROKEN_GPU.search(text):
        return None
    return StageError(
        reasons.GPU_UNUSABLE,
        f"GPU: it failed ({kind}: {_first_line(text, 200).rstrip('.')}); check the GPUs of the node with nvidia-smi.",
    )


def raise_location(error: BaseException) -> str | None:
    """Return file and line where an exception was raised: the innermost frame outside Python's standard library.

    The file is relative to its import root (``datasets/arrow_writer.py:123``), so that no path of the machine appears.
    """
    frames = traceback.extract_tb(error.__traceback__)
    known = [frame for frame in frames if not frame.filename.startswith("<")]  # generated code has no file
    outside = [frame for frame in known if not _is_pythons_own(frame.filename)]
    return next((f"{_imported_as(frame.filename)}:{frame.lineno}" for frame in reversed(outside or known)), None)


def _is_pythons_own(file: str) -> bool:
    return file.startswith(_PYTHON) and not any(part in file for part in _PACKAGES)


def _imported_as(file: str) -> str:
    """Return the path of a file relative to the folder or archive that it is imported from."""
    roots = [root for root in sys.path if root and file.startswith(root.rstrip(os.sep) + os.sep)]
    found = os.path.relpath(file, max(roots, key=len)) if roots else Path(file).name
    return re.sub(r"[\s()]", "_", found)


FULL_DISK = re.compile(
    r"no space left on device|disk quota exceeded|\[?errno (?:28|122)\b|\(os error (?:28|122)\)"
    r"|PytorchStreamWriter failed writing file|inline_container\.cc:\d+\] \. unexpected pos|database or disk is full",
    re.IGNORECASE,
)
"""Messages of a full file system: of the C library, Rust (safetensors), PyTorch's writer, SQLite. 28 is ENOSPC, 122 is EDQUOT."""
_BROKEN_GPU = re.compile(
    r"CUDA error: (?:uncorrectable (?:ECC|NVLink) error|hardware stack error|no CUDA-capable device|CUDA-capable device\(s\) is/are busy)"
    r"|GPU (?:is lost|has fallen off the bus)",
    re.IGNORECASE,
)
"""Messages of the CUDA runtime about a GPU that does not work, which another node need not have."""
_HOST_ALLOCATION = re.compile(
    r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|std::bad_alloc|cannot allocate memory", re.IGNORECASE
)
"""Messages of allocators of the machine's memory: of PyTorch, C++ and the C library (ENOMEM)."""
_PYTHON = f"{Path(os.__file__).parent}{os.sep}"
_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def first_line(error: BaseException, limit: int = 500) -> str:
    """Return the first line of an exception's text, shortened."""
    return _first_line(str(error), limit) or type(error).__name__[:limit]


def _first_line(text: str, limit: int = 500) -> str:
    return next(iter(text.strip().splitlines()), "")[:limit]


def one_line(text: str, limit: int) -> str:
    """Return a text of another program on one line, without characters that control a terminal, shortened."""
    return " ".join("".join(one if one.isprintable() else " " for one in text[: 4 * limit]).split())[:limit]


def causes(error: BaseException, *, suppressed: bool = True) -> list[BaseException]:
    """Return the chain of an exception and its causes, the outermost first.

    HTTP libraries hide certificate errors with ``raise ... from None``; without ``suppressed`` such a statement ends the chain.
    """
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and not any(link is earlier for earlier in links):
        links.append(link)
        link = link.__cause__ or (link.__context__ if suppressed or not link.__suppress_context__ else None)
    return links
