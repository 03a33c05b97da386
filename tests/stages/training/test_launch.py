"""Start and end of workers: their standard error is copied, nothing that they leave behind delays their end, and the first cause is reported."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from finetune_contract import reasons
from finetune_contract.result import Result, termination_message
from finetune_stages.training import launch
from finetune_stages.training.processes import Processes
from finetune_stages.training.supervise import _first_failure

PROGRAM = """
import subprocess, sys
print("the last line", file=sys.stderr, flush=True)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(20)"])
sys.exit(3)
"""


def test_a_process_that_outlives_the_worker_does_not_delay_its_end(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "leaving_a_child.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(launch, "_module", lambda: "leaving_a_child")
    monkeypatch.setattr(launch, "_LAST_LINES", 0.5)
    began = time.monotonic()
    assert launch.launch(Processes(), tmp_path) == {0: 3}
    assert time.monotonic() - began < 15
    assert launch.errors_of(tmp_path, 0) == "the last line\n"
    assert "[rank 0]: the last line" in capsys.readouterr().err


def test_a_worker_that_the_agent_killed_is_not_the_cause(tmp_path: Path) -> None:
    """torchrun kills a worker that does not react to SIGTERM after another one has failed."""
    lost = Result("training", "1.1", "i" * 64, "Failed", "ProcessGroupTimeout", "process 0 of 2 lost process 1")
    (tmp_path / "0.json").write_text(termination_message(lost))
    assert _first_failure(tmp_path, {0: 75, 1: -9}, Processes(per_node=2), False).reason is reasons.PROCESS_GROUP_TIMEOUT
    assert _first_failure(tmp_path, {0: 75, 1: -9}, Processes(per_node=2), True).reason is reasons.HOST_OUT_OF_MEMORY
    (tmp_path / "0.json").unlink()
    alone = _first_failure(tmp_path, {1: -9}, Processes(per_node=2), False)
    assert (
        alone.message
        == "training process 1: it was killed by signal 9 without a result; read the end of the log of stage training."
    )
