"""The cause of a backend's failure, found in its output: the backends end with a general exception."""

from __future__ import annotations

import re
from collections.abc import Sequence

from finetune_contract import reasons
from finetune_contract.reasons import Reason
from finetune_stages.sdk import StageError

_EXCEPTION = re.compile(r"^(?:\[rank\d+\]:\s*)?((?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt))\b(?:: (.*))?$")
_CONSEQUENCES = ("ChildFailedError", "SignalException", "CalledProcessError", "KeyboardInterrupt")
"""Exceptions of torchrun about the failure of a worker."""
_GENERAL = ("Suffered a failure during distributed training", "Training failed. Please check the logs")
"""Texts of the backends' own last exceptions."""
_CAUSES: tuple[tuple[re.Pattern[str], Reason], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (r"out of memory", reasons.GPU_OUT_OF_MEMORY),
        (r"no space left on device|disk quota exceeded", reasons.WORKSPACE_FULL),
        (r"^(ModuleNotFoundError|ImportError)\b", reasons.ENGINE_MISSING),
        (r"connection closed by peer|connection reset by peer|rendezvous|NCCL|DistNetworkError|DistBackendError|timed out", reasons.PROCESS_GROUP_TIMEOUT),
        (r"^(pydantic_core\.\S*)?ValidationError\b|received unexpected type|must be (between|divisible|a positive)", reasons.BAD_TRAINING_VALUE),
    )
)  # fmt: skip


def failure(backend: str, exit_code: int, output: Sequence[str]) -> StageError:
    """Return the failure of a backend that ended with ``exit_code`` after these last lines of output."""
    raised = [text for line in output if (text := _exception(line))]
    shown = raised[-1] if raised else f"exit code {exit_code}"
    for pattern, reason in _CAUSES:
        found = next((text for text in raised if pattern.search(text)), None)
        if found:
            return StageError(
                reason, f"training: {backend} failed ({found[:400]}); {reason.remedy[0].lower()}{reason.remedy[1:]}"
            )
    return StageError(reasons.CRASHED, f"training: {backend} ended with exit code {exit_code} ({shown[:400]}).")


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
