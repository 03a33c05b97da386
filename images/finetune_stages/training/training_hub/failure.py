"""The cause of a backend's failure, found in its output: the backends end with a general exception."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from finetune_contract import reasons
from finetune_contract.reasons import Reason
from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import recognized
from finetune_stages.training.peers import names_lost_peer, watchdog_line

_SHOWN = 400
"""Characters of a line in a message."""
_RANK = re.compile(r"^(?:\[[a-z]+\d+\]: ?)+")
"""What torchrun and PyTorch put before the lines of a worker."""
_EXCEPTION = re.compile(r"((?:\w+\.)*\w*(?:Error|Exception|Exit|Interrupt|Timeout|Expired))\b(?:: (.*))?$")
_CONSEQUENCES = ("ChildFailedError", "SignalException", "CalledProcessError", "KeyboardInterrupt")
"""Exceptions of torchrun about the failure of a worker."""
_GENERAL = ("Suffered a failure during distributed training", "Training failed. Please check the logs")
"""Texts of the backends' own last exceptions."""


@dataclass(frozen=True)
class _Raised:
    """The last line of a traceback: the name of the exception's class, and its text."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.text else self.kind


_CAUSES: tuple[tuple[Callable[[_Raised], object], Reason], ...] = (
    (lambda raised: raised.kind in ("ModuleNotFoundError", "ImportError"), reasons.ENGINE_MISSING),
    (lambda raised: raised.kind in ("DistBackendError", "DistNetworkError", "DistStoreError"), reasons.PROCESS_GROUP_TIMEOUT),
    (lambda raised: raised.kind.startswith("Rendezvous"), reasons.PROCESS_GROUP_TIMEOUT),
    # Of torch and gloo. The loggers that a user adds have exceptions of their own for services that do not answer.
    (lambda raised: raised.kind == "RuntimeError" and names_lost_peer(raised.text), reasons.PROCESS_GROUP_TIMEOUT),
    (lambda raised: raised.kind == "ValidationError" or "received unexpected type" in raised.text, reasons.BAD_TRAINING_VALUE),
)
"""The exceptions of each cause, in order of precedence."""


def failure(backend: str, exit_code: int, output: Sequence[str]) -> StageError:
    """Return the failure of a backend that ended with ``exit_code`` after these last lines of output."""
    raised = list(_tracebacks(output))
    for one in raised:
        if known := recognized(one.kind, one.text):
            return known
    for matches, reason in _CAUSES:
        found = next((one for one in raised if matches(one)), None)
        if found:
            return _caused(backend, str(found), reason)
    if line := watchdog_line("\n".join(output)):  # NCCL ends a process without an exception
        return _caused(backend, line, reasons.PROCESS_GROUP_TIMEOUT)
    how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"
    what = f" ({str(raised[-1])[:_SHOWN]})" if raised else ""
    return StageError(reasons.CRASHED, f"training: {backend} {how}{what}.")


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


def _tracebacks(output: Sequence[str]) -> Iterator[_Raised]:
    """Yield the exceptions that end a traceback: a line that only names one was printed by a library that handled it."""
    inside = False
    for line in output:
        text = _RANK.sub("", line)
        if inside and (raised := _raised(text)):
            yield raised
        inside = text.startswith((" ", "Traceback ("))


def _raised(line: str) -> _Raised | None:
    """Return the exception in the last line of a traceback."""
    match = _EXCEPTION.match(line.rstrip())
    if match is None or match[1].rpartition(".")[2] in _CONSEQUENCES or any(text in line for text in _GENERAL):
        return None
    return _Raised(match[1].rpartition(".")[2], match[2] or "")
