"""Why an attempt ended badly, from the evidence that is left."""

from __future__ import annotations

import pytest

from finetune_contract.result import Result, termination_message
from finetune_operator.core.diagnosis import diagnose
from finetune_operator.core.pod_report import PodReport, Termination


def pod(code: int | None, rank: int = 0, reason: str = "Error", message: str = "", **report: object) -> PodReport:
    end = None if code is None else Termination(code, reason, message)
    return PodReport(f"p{rank}", rank, "Failed", end, **report)  # type: ignore[arg-type]


def result_message(reason: str, message: str = "words") -> str:
    return termination_message(Result("training", "1.1", "", "Failed", reason, message))


EVIDENCE = {
    "its own word": (pod(65, message=result_message("BadRow", "Row 3 is bad.")), "", "BadRow", "Row 3 is bad."),
    "the kernel's": (pod(137, reason="OOMKilled"), "", "OutOfMemoryHost", "memory limit"),
    "an eviction": (pod(143, disrupted=True, rejected_message="node was drained"), "", "Evicted", "node was drained"),
    "an eviction without words": (pod(137, disrupted=True), "", "Evicted", "evicted or its node was lost"),
    "the GPU's, in the log": (pod(1), "x\ntorch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB\ny", "OutOfMemoryGPU", "Tried 2 GiB"),
    "NCCL's, in the log": (pod(1), "[rank0] Watchdog caught collective operation timeout: NCCL timed out", "ProcessGroupTimeout", "Watchdog"),
    "the volume's, in the log": (pod(1), "OSError: [Errno 28] No space left on device", "WorkspaceFull", "No space left"),
    "the allocator's, in the log": (pod(1), "MemoryError", "OutOfMemoryHost", "MemoryError"),
    "a signal from outside": (pod(137), "", "Killed", "signal 9"),
    "a request to stop": (pod(143), "", "Interrupted", "The process was stopped."),
    "nothing": (pod(3), "some words", "Crashed", "exit code 3"),
    "a word that is not of the list": (pod(1, message=result_message("SomethingElse")), "", "Crashed", "exit code 1"),
    "a refusal for want of memory": (pod(None, rejected="OutOfmemory", rejected_message="64 GiB asked"), "", "InsufficientResources", "64 GiB"),
    "a refusal without words": (pod(None, rejected="OutOfcpu"), "", "InsufficientResources", "OutOfcpu"),
    "a shutdown": (pod(None, rejected="Shutdown"), "", "ShutDown", "shut down"),
    "an eviction before the end": (pod(None, rejected="Evicted", rejected_message="disk pressure"), "", "Evicted", "disk pressure"),
    "a pod that was taken away": (pod(None), "", "Evicted", "evicted or its node was lost"),
    "a shutdown of a process that could not say so": (pod(143, disrupted=True, rejected="Shutdown"), "", "ShutDown", "shut down"),
}  # fmt: skip


@pytest.mark.parametrize(("report", "log", "reason", "words"), EVIDENCE.values(), ids=EVIDENCE)
def test_evidence_has_a_reason_of_the_list(report: PodReport, log: str, reason: str, words: str) -> None:
    found = diagnose((report,), {"p0": log}, "")
    assert found.reason.name == reason
    assert words in found.message


def test_a_result_of_another_contract_is_reported_as_one() -> None:
    message = '{"finetune": {"contractVersion": 9}}'
    assert diagnose((pod(1, message=message),), {}, "").reason.name == "ContractUnknown"


def test_the_rank_that_failed_first_is_believed_and_not_those_that_were_dragged_along() -> None:
    pods = (
        pod(143, 0, message=result_message("Interrupted")),
        pod(75, 1, message=result_message("ProcessGroupTimeout")),
        pod(65, 2, message=result_message("LossNotANumber")),
    )
    found = diagnose(pods, {}, "")
    assert (found.reason.name, found.pod) == ("LossNotANumber", "p2")


def test_without_pods_the_child_s_own_words_are_all_there_is() -> None:
    found = diagnose((), {}, "Job has reached the specified backoff limit")
    assert found.reason.name == "ChildLost"
    assert "backoff limit" in found.message


@pytest.mark.parametrize(
    ("log", "reason", "message"),
    [
        ("gloo: waiting\nno timeout here\n", "Crashed", "The process ended with exit code 1 and no result."),
        ("Timeout of NCCL\n", "Crashed", "The process ended with exit code 1 and no result."),
        ("first NCCL Time Out\nlast ProcessGroupNCCL: timedout\nend", "ProcessGroupTimeout", "last ProcessGroupNCCL: timedout"),
        ("torch.distributed.DistBackendError: x", "ProcessGroupTimeout", "torch.distributed.DistBackendError: x"),
        (f"MemoryError {'x' * 500}", "OutOfMemoryHost", f"MemoryError {'x' * 288}"),
        ("MemoryError\n" + "\r" * 400, "Crashed", "The process ended with exit code 1 and no result."),
        ("MemoryError\n" + "\r" * 399, "OutOfMemoryHost", "MemoryError"),
        ("MemoryError" + " " * 16384, "Crashed", "The process ended with exit code 1 and no result."),
        ("MemoryError at https://user:secret@host/x?sig=abc", "OutOfMemoryHost", "MemoryError at https://***@host/x?sig=***"),
    ],
)
def test_the_last_line_of_the_log_with_evidence(log: str, reason: str, message: str) -> None:
    found = diagnose((pod(1),), {"p0": log}, "")
    assert (found.reason.name, found.message) == (reason, message)
