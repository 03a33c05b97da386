"""The cause of a backend's failure, found in its output: the backends end with a general exception."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from finetune_contract import reasons
from finetune_contract.reasons import Reason
from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import FULL_DISK
from finetune_stages.training.peers import names_lost_peer, watchdog_line

_SHOWN = 400
"""Characters of a line in a message."""
_EXCEPTION = re.compile(r"^(?:\[rank\d+\]:\s*)?((?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt))\b(?:: (.*))?$")
_CONSEQUENCES = ("ChildFailedError", "SignalException", "CalledProcessError", "KeyboardInterrupt")
"""Exceptions of torchrun about the failure of a worker."""
_GENERAL = ("Suffered a failure during distributed training", "Training failed. Please check the logs")
"""Texts of the backends' own last exceptions."""
_CAUSES: tuple[tuple[Callable[[str], object], Reason], ...] = (
    (re.compile("out of memory", re.IGNORECASE).search, reasons.GPU_OUT_OF_MEMORY),
    (FULL_DISK.search, reasons.WORKSPACE_FULL),
    (re.compile("ModuleNotFoundError|ImportError").match, reasons.ENGINE_MISSING),
    (re.compile("DistBackendError|DistNetworkError|DistStoreError|Rendezvous").match, reasons.PROCESS_GROUP_TIMEOUT),
    (names_lost_peer, reasons.PROCESS_GROUP_TIMEOUT),
    (re.compile("ValidationError|.*received unexpected type").match, reasons.BAD_TRAINING_VALUE),
)
"""What the exception of each cause contains, in order of precedence."""


def failure(backend: str, exit_code: int, output: Sequence[str]) -> StageError:
    """Return the failure of a backend that ended with ``exit_code`` after these last lines of output."""
    raised = [text for line in output if (text := _exception(line))]
    for matches, reason in _CAUSES:
        found = next((text for text in raised if matches(text)), None)
        if found:
            return _caused(backend, found, reason)
    if line := watchdog_line("\n".join(output)):  # NCCL ends a process without an exception
        return _caused(backend, line, reasons.PROCESS_GROUP_TIMEOUT)
    what = f" ({raised[-1][:_SHOWN]})" if raised else ""
    return StageError(reasons.CRASHED, f"training: {backend} ended with exit code {exit_code}{what}.")


def _caused(backend: str, found: str, reason: Reason) -> StageError:
    remedy = f"{reason.remedy[0].lower()}{reason.remedy[1:]}"
    return StageError(reason, f"training: {backend} failed ({found[:_SHOWN]}); {remedy}")


def ended_late(output: Sequence[str]) -> bool:
    """Return whether a backend reports a failure although torchrun reported none.

    instructlab-training 0.12 takes the exit code of torchrun as soon as its output ends, and fails if torchrun has not ended yet. The
    training is complete then; only its last model and its metrics can show that.
    """
    general = any(text in line for line in output for text in _GENERAL)
    return general and not any(name in line for line in output for name in ("ChildFailedError", "SignalException"))


def _exception(line: str) -> str | None:
    """Return exception and text of the last line of a traceback."""
    match = _EXCEPTION.match(line.strip())
    if match is None or match[1].rpartition(".")[2] in _CONSEQUENCES or any(text in line for text in _GENERAL):
        return None
    return f"{match[1].rpartition('.')[2]}: {match[2]}" if match[2] else match[1].rpartition(".")[2]
