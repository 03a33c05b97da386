"""Several processes in one pod: torchrun's agent starts this program once for each, and ends all when one fails."""

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
from finetune_stages.sdk.fault import Interrupted

from .libraries import require_engine
from .machine import killed_for_memory, processors
from .processes import Processes
from .quantisation import require_device

FOLDER_VARIABLE = "FINETUNE_WORKERS"
"""Environment variable with the folder that the workers of this pod leave their results in; it makes a process a worker."""
_GRACE = 5.0
"""Seconds that a worker has, after SIGTERM, to come back from whatever library it is in."""
_BLAME = (Cause.USER, Cause.OUT_OF_MEMORY, Cause.CRASH, Cause.LOST, Cause.TRANSIENT, Cause.INTERRUPTED)
"""Which of several failures is the cause: a process that lost its peers only says so because another one failed."""


def supervise(context: Context, processes: Processes) -> Finished:
    """Run one worker a process, and return what the first of them did (on the other nodes, nothing).

    Raises:
        StageError: ``NoGPU``, ``EngineMissing``, or the failure of the worker that failed first.
        Interrupted: SIGTERM; the workers have ended.
    """
    inputs = context.inputs(TrainingInputs)
    require_device(inputs)
    require_engine(inputs)
    with tempfile.TemporaryDirectory(prefix="finetune-workers-") as name:
        folder = Path(name)
        os.environ[FOLDER_VARIABLE] = name
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, processors() // processes.per_node)))
        killed = killed_for_memory()
        failed = _launch(processes)
        if failed is not None:
            raise _first_failure(folder, failed, killed_for_memory() > killed)
        if processes.node_rank > 0:
            return Finished(outputs={})
        left = json.loads(_handover(folder).read_bytes())
        context.last_progress = from_rhoai(left["progress"])
        return decode(Finished, left["finished"])


def hand_over(context: Context, finished: Finished) -> None:
    """In the first worker: leave what was done for the agent, which speaks for the pod."""
    left = {"finished": encode(finished), "progress": to_rhoai(context.last_progress) if context.last_progress else {}}
    _handover(Path(os.environ[FOLDER_VARIABLE])).write_text(json.dumps(left))


def become_worker(processes: Processes) -> None:
    """In a worker: its failure goes to the agent."""
    os.environ[RESULT_VARIABLE] = str(Path(os.environ[FOLDER_VARIABLE]) / f"{processes.rank}.json")


@contextmanager
def ended_in_time(worker: bool) -> Iterator[None]:
    """Check that SIGTERM ends this process within seconds, and that no worker outlives its agent.

    Python runs signal handlers between its own instructions only: a long decomposition, or waiting for a peer that is gone,
    would hold them up until the kubelet kills the pod. The wake-up file descriptor is written to at once.
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


def _launch(processes: Processes) -> dict[int, int] | None:
    """Run the workers to their end; ``None``, or the exit codes of those that failed, by rank."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    where = (
        ["--master-addr", processes.address, "--master-port", processes.port or "29500"]
        if processes.address
        else ["--standalone"]
    )
    arguments = [
        "--nnodes", str(processes.nodes), "--nproc-per-node", str(processes.per_node), "--node-rank", str(processes.node_rank),
        "--max-restarts", "0", "--monitor-interval", "0.1", *where, *_this_program(),
    ]  # fmt: skip
    handler = signal.getsignal(signal.SIGTERM)
    try:
        run.main(arguments)
    except ChildFailedError as error:
        return {rank: failure.exitcode for rank, failure in error.failures.items()}
    except SignalException:
        raise Interrupted from None
    finally:
        signal.signal(signal.SIGTERM, handler)
    return None


def _this_program() -> list[str]:
    """Return how to start this program again: the zip application that it runs from, or the installed package."""
    archive = getattr(__spec__.loader, "archive", None)
    return [str(archive)] if archive else ["--module", __spec__.parent or ""]


def _first_failure(folder: Path, exit_codes: dict[int, int], out_of_memory: bool) -> StageError:
    failures = []
    for path in folder.glob("*.json"):
        result = parse_message(path.read_text())
        if result is not None and result.reason in STAGE_REASONS:
            failures.append(StageError(STAGE_REASONS[result.reason], result.message))
    unspoken = {
        rank: code for rank, code in exit_codes.items() if not (folder / f"{rank}.json").exists() and code != -signal.SIGTERM
    }
    for rank, code in unspoken.items():
        if out_of_memory and code == -signal.SIGKILL:
            message = f"The kernel killed training process {rank} because the pod's memory limit was reached."
            failures.append(StageError(reasons.HOST_OUT_OF_MEMORY, message))
        else:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            failures.append(StageError(reasons.CRASHED, f"Training process {rank} {how} and left no result."))
    if not failures:
        return StageError(reasons.CRASHED, f"The training processes ended without a result (exit codes {exit_codes}).")
    return min(failures, key=lambda failure: _BLAME.index(failure.reason.cause))


def _handover(folder: Path) -> Path:
    return folder / "finished"
