"""Start of one worker: its standard error is copied, and nothing that it leaves behind delays its end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from finetune_stages.training import launch
from finetune_stages.training.processes import Processes

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
