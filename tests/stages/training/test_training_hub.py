"""Engine training-hub without its backends: rows, metrics, the call, and the cause of a failure in its output.

tests/compat runs the real backends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finetune_contract import reasons
from finetune_contract.reasons import Reason
from finetune_stages.sdk.fault import Interrupted
from finetune_stages.training import libraries
from finetune_stages.training.rows import Rows
from finetune_stages.training.training_hub import installed as packages
from finetune_stages.training.training_hub.call import run_call
from finetune_stages.training.training_hub.failure import ended_late, failure
from finetune_stages.training.training_hub.installed import NotInstalled, installed
from finetune_stages.training.training_hub.metrics import Metrics, Step
from finetune_stages.training.training_hub.rows import write_rows

LATE = "RuntimeError: Suffered a failure during distributed training. Please see the training logs for more context."


def test_rows_have_tokens_labels_and_counts(tmp_path: Path) -> None:
    rows = Rows(np.array([5, 6, 7, 8, 9], np.int32), np.array([0, 1, 1, 0, 1], bool), np.array([0, 3, 5]))
    reported: list[int] = []
    write_rows(rows, tmp_path / "data.jsonl", reported.append)
    assert [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()] == [
        {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "len": 3, "num_loss_counted_tokens": 2},
        {"input_ids": [8, 9], "labels": [-100, 9], "len": 2, "num_loss_counted_tokens": 1},
    ]
    assert reported == [0]


@pytest.mark.parametrize(
    ("algorithm", "file", "record"),
    [
        (
            "sft",
            "training_params_and_metrics_global0.jsonl",
            {"avg_loss": 2.5, "samples_seen": 16, "lr": 0.1, "num_epoch_steps": 4},
        ),
        ("osft", "training_metrics_0.jsonl", {"loss": 2.5, "total_samples_accumulated": 16.0, "lr": 0.1, "steps_per_epoch": 4}),
    ],
)
def test_steps_are_read_as_they_are_appended(tmp_path: Path, algorithm: str, file: str, record: dict[str, float]) -> None:
    metrics = Metrics(algorithm, tmp_path)
    assert metrics.update() == []
    path = tmp_path / "output" / file
    path.parent.mkdir()
    line = json.dumps({"step": 1, **record}) + "\n"
    broken = json.dumps({"step": None, **record}) + "\n" + json.dumps({"step": 1, **record}).replace("16", '"x"') + "\n"
    path.write_text('{"model_path": "x"}\nno JSON\n[1]\n' + broken + line[:20])
    assert metrics.update() == []
    path.write_text('{"model_path": "x"}\nno JSON\n[1]\n' + broken + line)
    assert metrics.update() == [Step(1, 2.5, 16, 0.1, 4)]
    with path.open("a") as appended:
        appended.write(json.dumps({"step": 2, **record, "loss": None, "avg_loss": "nan"}) + "\n")
    (second,) = metrics.update()
    assert second.number == 2
    assert second.loss != second.loss
    assert metrics.steps == [Step(1, 2.5, 16, 0.1, 4), second]


FRAME = ("Traceback (most recent call last):", '  File "/x/train.py", line 7, in main', "    step()")
CHILD_FAILED = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: "


@pytest.mark.parametrize(
    ("output", "reason", "words"),
    [
        (["[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", CHILD_FAILED, LATE], reasons.GPU_OUT_OF_MEMORY, "CUDA out of memory. Tried"),
        (["OSError: [Errno 28] No space left on device: '/x'", LATE], reasons.WORKSPACE_FULL, "No space left"),
        (["safetensors_rust.SafetensorError: Error while serializing: I/O error: Disk quota exceeded (os error 122)", LATE], reasons.WORKSPACE_FULL, "quota"),
        (["ModuleNotFoundError: No module named 'flash_attn'", LATE], reasons.ENGINE_MISSING, "No module named 'flash_attn'"),
        (["torch.distributed.DistBackendError: NCCL error in: ../x.cpp:1", LATE], reasons.PROCESS_GROUP_TIMEOUT, "NCCL error"),
        (["ValueError: error: param 'seed' received unexpected type, expected 'int' but got 'str'"], reasons.BAD_TRAINING_VALUE, "param 'seed'"),
        (["[rank1]:[E1129 ProcessGroupNCCL.cpp:1] Watchdog caught collective operation timeout: WorkNCCL(OpType=ALLREDUCE)", CHILD_FAILED, LATE], reasons.PROCESS_GROUP_TIMEOUT, "Watchdog caught"),
        (["RuntimeError: [/x/gloo/pair.cc:1] Connection closed by peer [127.0.0.1]:9", LATE], reasons.PROCESS_GROUP_TIMEOUT, "Connection closed"),
        (["MemoryError"], reasons.HOST_OUT_OF_MEMORY, "ran out of memory"),
        (["numpy._core._exceptions._ArrayMemoryError: Unable to allocate 9 GiB"], reasons.HOST_OUT_OF_MEMORY, "ran out of memory"),
        (["RuntimeError: [enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."], reasons.HOST_OUT_OF_MEMORY, "DefaultCPUAllocator"),
        (["torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered", CHILD_FAILED, LATE], reasons.GPU_UNUSABLE, "uncorrectable ECC error"),
        (["RuntimeError: unable to write to file </torch_1_2>: No space left on device (28)"], reasons.HOST_OUT_OF_MEMORY, "training.sharedMemory: "),
        (["wandb.errors.errors.CommError: Run initialization has timed out after 90.0 sec."], reasons.CRASHED, "(CommError: Run initialization"),
        (["requests.exceptions.ConnectionError: HTTPSConnectionPool(host='mlflow'): Connection refused"], reasons.CRASHED, "Connection refused"),
        (["ValueError: Timeout must be positive"], reasons.CRASHED, "(ValueError: Timeout must be positive)"),
        (["KeyError: 'weights'", CHILD_FAILED, LATE], reasons.CRASHED, "(KeyError: 'weights')"),
        (["nothing of use", "Segmentation fault"], reasons.CRASHED, "ended with exit code 7."),
    ],
)  # fmt: skip
def test_the_cause_of_a_failure_is_found_in_the_output(output: list[str], reason: Reason, words: str) -> None:
    traced = [line for text in output for line in (*(FRAME if "Error" in text else ()), text)]
    found = failure("mini-trainer", 7, traced)
    assert found.reason is reason
    assert words in found.message


def test_what_a_library_prints_about_an_exception_that_it_handled_is_no_cause() -> None:
    handled = ["ImportError: could not load optional module foo", "RuntimeError: CUDA out of memory, retrying with less"]
    real = [
        "[rank0]: Traceback (most recent call last):",
        '[rank0]:   File "/x.py", line 7',
        "[rank0]:     step()",
        "[rank0]: ValueError: x",
    ]
    assert failure("mini-trainer", 1, [*handled, *real, LATE]).message == (
        "training: mini-trainer ended with exit code 1 (ValueError: x)."
    )


def test_a_backend_that_was_killed_is_reported_with_the_signal() -> None:
    assert failure("mini-trainer", -9, ["step 1"]).message == "training: mini-trainer was killed by signal 9."


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["ERROR Training subprocess has not exited yet. Sending SIGTERM.", LATE], True),
        (["[rank0]: ValueError: x", "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:", LATE], False),
        (["ValueError: x"], False),
        ([], False),
    ],
)
def test_an_end_that_a_backend_did_not_wait_for_is_no_failure(lines: list[str], expected: bool) -> None:
    assert ended_late(lines) == expected


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """``stand_in(code)``: a package training_hub whose function ``sft`` runs that code; for what the real one does not do on demand."""

    def make(code: str) -> Path:
        package = tmp_path / "packages" / "training_hub"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f"import os, signal, subprocess, sys, time\ndef sft(**given):\n    {code}\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
        return tmp_path

    return make


def runs(pid: str) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_call_gets_its_arguments_and_its_output_is_kept(stand_in: Any, capfd: Any) -> None:
    folder = stand_in("print('first', given, flush=True); print('10%\\r20%', file=sys.stderr); sys.exit(3)")
    polled: list[int] = []
    ended = run_call("sft", {"a": 1, "b": [True, None]}, folder, lambda: polled.append(1))
    assert (ended.code, ended.output) == (3, ("first {'a': 1, 'b': [True, None]}", "20%"))
    assert polled
    assert "first {'a': 1" in capfd.readouterr().out


def test_torchrun_of_this_environment_is_on_the_path(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    ended = run_call("sft", {}, stand_in("print(os.environ['PATH'])"), lambda: None)
    assert ended.output == (f"{Path(sys.executable).parent}{os.pathsep}/usr/bin",)


def test_workers_that_ignore_sigterm_are_ended(stand_in: Any, capfd: Any) -> None:
    worker = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid(), flush=True); time.sleep(600)"
    program = f"import os, signal, time; {worker}"
    start = f"subprocess.Popen([sys.executable, '-c', {program!r}], start_new_session=True)"  # as torchrun does
    folder = stand_in(f"{start}; time.sleep(600)")
    began = time.monotonic()

    def stop() -> None:
        if time.monotonic() > began + 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        run_call("sft", {}, folder, stop)
    assert time.monotonic() - began < 20
    assert not runs(capfd.readouterr().out.split()[0])


def test_workers_that_outlive_the_process_that_started_them_are_ended(stand_in: Any, capfd: Any) -> None:
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    start = f"subprocess.Popen([sys.executable, '-c', {program!r}], start_new_session=True, stdout=1)"
    ended = run_call("sft", {}, stand_in(f"{start}; time.sleep(2); raise KeyError('x')"), lambda: None)
    assert ended.code == 1
    assert not runs(ended.output[0])


def test_a_call_whose_program_is_killed_does_not_outlive_it(stand_in: Any) -> None:
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    folder = stand_in(f"subprocess.Popen([sys.executable, '-c', {program!r}], start_new_session=True); time.sleep(600)")
    caller = (
        "import sys; from pathlib import Path; from finetune_stages.training.training_hub.call import run_call;"
        "run_call('sft', {}, Path(sys.argv[1]), lambda: None)"
    )
    process = subprocess.Popen([sys.executable, "-c", caller, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = process.stdout.readline().strip()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    end = time.monotonic() + 20
    while runs(child) and time.monotonic() < end:
        time.sleep(0.2)
    assert not runs(child)


def test_what_is_not_installed_is_named(inputs: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(
        NotInstalled, match=r"^it requires the Python package training-hub 0.4.0 or newer, and the image does not have it$"
    ):
        installed(inputs())

    class Distribution:
        def locate_file(self, name: str) -> Path:
            return tmp_path / name

    monkeypatch.setattr(packages.metadata, "distribution", lambda _name: Distribution())
    monkeypatch.setattr(libraries.metadata, "version", lambda _name: "0.3.9")
    with pytest.raises(
        NotInstalled, match=r"^it requires the Python package training-hub 0.4.0 or newer, and the image has 0.3.9$"
    ):
        installed(inputs())
    monkeypatch.setattr(packages.metadata, "version", lambda _name: "9.9")
    with pytest.raises(
        NotInstalled, match=r"^the image has training-hub 9.9, which has no readable file training_hub/algorithms/sft.py$"
    ):
        installed(inputs())
    for file in ("training_hub/algorithms/sft.py", "instructlab/training/config.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("def other(): pass\n")
    with pytest.raises(NotInstalled, match="whose signatures are unknown"):
        installed(inputs())
    (tmp_path / "training_hub/algorithms/sft.py").write_text("def sft(a, *, b=1, **kwargs): pass\n")
    (tmp_path / "instructlab/training/config.py").write_text("class TrainingArgs:\n    c: int\n    d: str = 'x'\n    e = 1\n")
    found = installed(inputs())
    assert [found.accepts(name) for name in "abcde"] == [True, True, True, True, False]
