"""Diagnosis of a failed attempt, from results, exit codes, reasons of the kubelet, and the end of the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finetune_contract import exitcodes
from finetune_contract import reasons as stage_reasons
from finetune_contract.codec import DocumentError
from finetune_contract.reasons import Cause, Reason
from finetune_contract.redaction import redact
from finetune_contract.result import Result, parse_message
from finetune_operator.api import reasons

from .pod_report import PodReport

SIGKILL = 137
"""128 + 9: the exit code of a process that was killed."""


@dataclass(frozen=True)
class Diagnosis:
    """The reason for which an attempt failed, and the pod that shows it."""

    reason: Reason
    message: str
    exit_code: int | None = None
    pod: str | None = None

    @property
    def cause(self) -> Cause:
        """The cause, which decides whether the stage is retried."""
        return self.reason.cause


@dataclass(frozen=True)
class _Evidence:
    """Texts in a line of a log that show a reason, in lower case.

    Attributes:
        texts: each of them shows the reason.
        before, after: one of the first and later in the line one of the second show it together.
    """

    reason: Reason
    texts: tuple[str, ...]
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def matches(self, text: str) -> bool:
        """Return whether a text in lower case has the evidence. The time is linear in its length: each text is searched once."""
        for word in self.texts:
            if word in text:
                return True
        starts = [place for word in self.before if (place := text.find(word)) >= 0]
        return bool(starts) and any(text.find(word, min(starts)) >= 0 for word in self.after)


_EVIDENCE = (
    _Evidence(stage_reasons.GPU_OUT_OF_MEMORY, ("cuda out of memory", "cuda error: out of memory", "hip out of memory")),
    _Evidence(
        stage_reasons.PROCESS_GROUP_TIMEOUT, ("distbackenderror",), before=("nccl", "processgroup", "gloo"),
        after=("timeout", "time out", "timed out", "timedout"),
    ),
    _Evidence(stage_reasons.WORKSPACE_FULL, ("no space left on device", "disk quota exceeded")),
    _Evidence(stage_reasons.HOST_OUT_OF_MEMORY, ("memoryerror", "cannot allocate memory")),
)  # fmt: skip
"""Lines in the log of a program that ended without a result, and the reasons that they show."""
LOG_LIMIT = 16 * 1024
"""Characters at the end of a log that are searched."""
_LINES_LIMIT = 400
"""Lines at the end of a log that are searched. Progress bars count as lines: they end with a carriage return."""
_LINE_LIMIT = 300
"""Characters of a line of a log in a message."""


def read_result(pod: PodReport) -> Result | None:
    """Return the result in a pod's termination message, ``None`` where there is none.

    Raises:
        DocumentError: the contract version of the result is not supported.
    """
    return parse_message(pod.termination.message) if pod.termination else None


def diagnose(pods: tuple[PodReport, ...], logs: Mapping[str, str], child_message: str) -> Diagnosis:
    """Return why an attempt failed: the first cause among its ranks, of equal ones that of the lowest rank."""
    found = [_diagnose_pod(pod, logs.get(pod.name, "")) for pod in pods if pod.failed]
    if not found:
        return Diagnosis(reasons.CHILD_LOST, f"The pods are gone. {child_message}".strip())
    return min(found, key=lambda diagnosis: _WEIGHT[diagnosis.cause])


_WEIGHT = {
    Cause.USER: 0, Cause.OUT_OF_MEMORY: 1, Cause.CRASH: 2, Cause.LOST: 3, Cause.TRANSIENT: 4, Cause.INTERRUPTED: 5,
}  # fmt: skip
"""Order of causes among ranks: a rank that reports lost peers does so because another rank failed first."""


def _diagnose_pod(pod: PodReport, log: str) -> Diagnosis:
    end = pod.termination
    if end is None:
        return _diagnose_rejection(pod)
    code = end.exit_code

    def because(reason: Reason, message: str) -> Diagnosis:
        return Diagnosis(reason, message, code, pod.name)

    try:
        result = read_result(pod)
    except DocumentError as error:
        return because(reasons.CONTRACT_UNKNOWN, str(error))
    if result is not None and result.reason in stage_reasons.STAGE_REASONS:
        return because(stage_reasons.STAGE_REASONS[result.reason], result.message)
    if end.reason == "OOMKilled":
        return because(
            stage_reasons.HOST_OUT_OF_MEMORY, "The kernel killed the process, because the pod reached its memory limit."
        )
    if pod.disrupted:
        return _diagnose_rejection(pod, code)
    shown = _evidence(log)
    if shown is not None:
        return because(*shown)
    if code == exitcodes.INTERRUPTED:
        return because(stage_reasons.INTERRUPTED, "The process was stopped.")
    if code == SIGKILL:
        return because(reasons.KILLED, "The process was killed (signal 9).")
    return because(stage_reasons.CRASHED, f"The process ended with exit code {code} and no result.")


def _diagnose_rejection(pod: PodReport, code: int | None = None) -> Diagnosis:
    """Return the reason of a pod that was not admitted or was removed, from the reason that the kubelet gave."""
    reason, message = pod.rejected, pod.rejected_message
    if pod.init_failure and not reason and not pod.disrupted:
        return Diagnosis(reasons.INIT_CONTAINER_FAILED, f"Pod {pod.name}: its {pod.init_failure}.", code, pod.name)
    if reason.startswith("OutOf"):
        return Diagnosis(reasons.INSUFFICIENT_RESOURCES, message or reason, code, pod.name)
    if reason in ("Shutdown", "Terminated", "NodeShutdown"):
        return Diagnosis(reasons.SHUT_DOWN, message or "The machine was shut down.", code, pod.name)
    return Diagnosis(reasons.EVICTED, message or reason or "The pod was evicted or its node was lost.", code, pod.name)


def _evidence(log: str) -> tuple[Reason, str] | None:
    """Return the reason that a log shows, and the last line that shows it, without credentials; ``None`` if it shows none."""
    log = log[-LOG_LIMIT:]
    whole, lines = log.lower(), log.splitlines()[-_LINES_LIMIT:]
    lowered = whole.splitlines()[-_LINES_LIMIT:]
    for evidence in _EVIDENCE:
        if not evidence.matches(whole):  # most logs show none of them
            continue
        for line, text in zip(reversed(lines), reversed(lowered), strict=True):
            if evidence.matches(text):
                return evidence.reason, redact(line.strip())[:_LINE_LIMIT]
    return None
