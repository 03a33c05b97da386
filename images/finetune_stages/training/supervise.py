"""Supervision of this pod's workers: start them, and report their result or the first failure."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_contract import exitcodes, reasons
from finetune_contract.codec import decode, encode
from finetune_contract.documents import RESULT_VARIABLE, TrainingInputs
from finetune_contract.progress import from_rhoai, to_rhoai
from finetune_contract.reasons import STAGE_REASONS, Cause
from finetune_contract.result import parse_message
from finetune_stages.sdk import Context, Finished, StageError

from .consistency import require_consistent
from .launch import errors_of, launch
from .machine import killed_for_memory, processors
from .peers import lost_peer, watchdog_line
from .processes import Processes, require_devices
from .quantization import require_device

FOLDER_VARIABLE = "FINETUNE_WORKERS"
"""Environment variable with the folder for the workers' results; it marks a process as a worker."""
_GRACE = 5.0
"""Seconds for a worker to end after SIGTERM."""
_PRECEDENCE = (Cause.USER, Cause.OUT_OF_MEMORY, Cause.CRASH, Cause.LOST, Cause.TRANSIENT, Cause.INTERRUPTED)
"""Order of causes: the failure of one process makes the others fail with a later one."""


def supervise(context: Context, processes: Processes) -> Finished:
    """Run one worker per process, and return the result of the first worker (on other nodes, an empty result).

    Raises:
        StageError: ``NoGPU``, ``BadTrainingValue``, or the failure of the first worker that failed.
        Interrupted: SIGTERM was received; the workers have ended.
    """
    inputs = context.inputs(TrainingInputs)
    require_devices(processes)
    require_device(inputs)
    require_consistent(inputs, processes)
    with tempfile.TemporaryDirectory(prefix="finetune-workers-") as name:
        folder = Path(name)
        os.environ[FOLDER_VARIABLE] = name
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, processors() // processes.per_node)))
        killed = killed_for_memory()
        try:
            failed = launch(processes, folder)
        except StageError:
            if not any(folder.glob("*.json")):
                raise
            failed = {}  # a worker has reported the cause
        if failed is not None:
            raise _first_failure(folder, failed, processes, killed_for_memory() > killed)
        if processes.node_rank > 0:
            return Finished(outputs={})
        left = json.loads(_handover(folder).read_bytes())
        context.last_progress = from_rhoai(left["progress"])
        return decode(Finished, left["finished"])


def hand_over(context: Context, finished: Finished) -> None:
    """Write the result for the agent, in the first worker. The agent reports for the pod."""
    left = {"finished": encode(finished), "progress": to_rhoai(context.last_progress) if context.last_progress else {}}
    _handover(Path(os.environ[FOLDER_VARIABLE])).write_text(json.dumps(left))


def become_worker(processes: Processes) -> None:
    """Direct this worker's failure to the agent."""
    os.environ[RESULT_VARIABLE] = str(Path(os.environ[FOLDER_VARIABLE]) / f"{processes.rank}.json")


@contextmanager
def ended_in_time(worker: bool) -> Iterator[None]:
    """Ensure that SIGTERM ends this process within seconds, and that no worker outlives its agent.

    Python runs signal handlers only between bytecode instructions: a long decomposition, or a wait for a lost peer, would delay them
    until the kubelet kills the pod. The file descriptor of ``signal.set_wakeup_fd`` is written immediately.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_end_after_sigterm, args=(reader,), daemon=True).start()
    if worker:
        threading.Thread(target=_end_without_parent, args=(os.getppid(),), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)


def _end_after_sigterm(reader: int) -> None:
    while number := os.read(reader, 1):
        if number[0] == signal.SIGTERM:
            time.sleep(_GRACE)
            os._exit(exitcodes.INTERRUPTED)
    os.close(reader)


def _end_without_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _first_failure(folder: Path, exit_codes: dict[int, int], processes: Processes, out_of_memory: bool) -> StageError:
    failures = []
    for path in folder.glob("*.json"):
        result = parse_message(path.read_text())
        if result is not None and result.reason in STAGE_REASONS:
            failures.append(StageError(STAGE_REASONS[result.reason], result.message))
    without_result = {
        rank: code for rank, code in exit_codes.items() if not (folder / f"{rank}.json").exists() and code != -signal.SIGTERM
    }
    for rank, code in without_result.items():
        if out_of_memory and code == -signal.SIGKILL:
            message = f"training.resources.memory: the kernel killed training process {rank} because the pod reached its memory limit; raise it."
            failures.append(StageError(reasons.HOST_OUT_OF_MEMORY, message))
        elif code == -signal.SIGABRT and (
            line := watchdog_line(errors_of(folder, rank - processes.node_rank * processes.per_node))
        ):
            failures.insert(0, lost_peer(rank, processes.world, line))  # the others lost this process in turn
        else:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            failures.append(
                StageError(
                    reasons.CRASHED,
                    f"training process {rank}: it {how} without a result; read the end of the log of stage training.",
                )
            )
    if not failures:
        codes = ", ".join(f"{code} of process {rank}" for rank, code in sorted(exit_codes.items())) or "unknown"
        message = (
            f"training processes: they ended without a result (exit codes: {codes}); read the end of the log of stage training."
        )
        return StageError(reasons.CRASHED, message)
    return min(failures, key=lambda failure: _PRECEDENCE.index(failure.reason.cause))


def _handover(folder: Path) -> Path:
    return folder / "finished"
