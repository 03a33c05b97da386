"""Diagnosis of a failed attempt, from results, exit codes, reasons of the kubelet, and the end of the log."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from finetune_contract import exitcodes
from finetune_contract import reasons as stage_reasons
from finetune_contract.codec import DocumentError
from finetune_contract.reasons import Cause, Reason
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


_PATTERNS: tuple[tuple[re.Pattern[str], Reason], ...] = (
    (
        re.compile(r"CUDA out of memory|CUDA error: out of memory|HIP out of memory", re.IGNORECASE),
        stage_reasons.GPU_OUT_OF_MEMORY,
    ),
    (
        re.compile(r"(NCCL|ProcessGroup\w*|gloo)[^\n]*(timed? ?out|timeout)|DistBackendError", re.IGNORECASE),
        stage_reasons.PROCESS_GROUP_TIMEOUT,
    ),
    (re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE), stage_reasons.WORKSPACE_FULL),
    (re.compile(r"MemoryError|Cannot allocate memory", re.IGNORECASE), stage_reasons.HOST_OUT_OF_MEMORY),
)
"""Lines in the log of a program that ended without a result, and the reasons that they show."""


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
    for pattern, reason in _PATTERNS:
        line = _matching_line(pattern, log)
        if line:
            return because(reason, line)
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


def _matching_line(pattern: re.Pattern[str], log: str) -> str:
    for line in reversed(log.splitlines()):
        if pattern.search(line):
            return line.strip()[:300]
    return ""
