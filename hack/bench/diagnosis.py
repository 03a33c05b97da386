"""Diagnosis of a failed pod and redaction of its log, for an ordinary log and for the worst texts of the same size.

Target: at most 2 ms for both together, with 16 KiB of log.
"""

from __future__ import annotations

from collections.abc import Callable

from figures import machine, spread, timed

from finetune_contract.redaction import redact
from finetune_operator.core.diagnosis import LOG_LIMIT, diagnose
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_stages.sdk.redaction import Redactor

REPEATS = 51
_LINE = "{'loss': 1.2345, 'grad_norm': 0.51, 'learning_rate': 2e-05, 'epoch': 0.31} 120/400 [02:10<05:04, 1.09s/it]\n"
_ENVIRONMENT = {
    "HF_TOKEN": "hf_0123456789abcdefghijklmnop",
    "REGISTRY_TOKEN": "sha256~0123456789abcdefghijklmnop",
    "DB_PASSWORD": "hunter2-of-the-db",
}


def filled(text: str) -> str:
    """Return a log of the greatest size with this text again and again."""
    return (text * (LOG_LIMIT // len(text) + 1))[:LOG_LIMIT]


LOGS = {
    "ordinary": filled(_LINE), "traceback with a URL": filled(f"{_LINE}GET https://user:pw@host/x?X-Amz-Signature=abc&a=b\n"),
    "words of a timeout": filled("NCCLProcessGroup"), "lines of a timeout": filled("NCCL\ntimeout\n"), "a login without an end": "x://" + filled("a")[4:],
    "parameters": filled("?token"), "tokens": filled("-eyJ"),
}  # fmt: skip


def main() -> None:
    """Print the figures."""
    by_value = Redactor(_ENVIRONMENT)

    def diagnosed(log: str) -> Callable[[], object]:
        pod = PodReport("p", termination=Termination(1))
        return lambda: (diagnose((pod,), {"p": log}, ""), redact(log))

    def hidden(log: str) -> Callable[[], object]:
        return lambda: by_value(log)

    print("diagnosis and redaction of 16 KiB")
    print(machine())
    for name, log in LOGS.items():
        print(f"  operator, {name}: {spread(timed(diagnosed(log), REPEATS), 'ms', 1e3)}")
        print(f"  stage program, {name}: {spread(timed(hidden(log), REPEATS), 'ms', 1e3)}")


if __name__ == "__main__":
    main()
