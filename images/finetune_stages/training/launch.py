"""Start of this pod's workers, with a copy of what they write to standard error: native code writes its last lines only there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

from finetune_stages.sdk.fault import Interrupted

from .peers import agents_may_be_lost
from .processes import Processes, timeout

_LOGS = "logs"
"""Subfolder with the workers' standard error."""
_GRACE = 10.0
"""Seconds for the worker to end after SIGTERM; it ends itself after five."""
_LAST_LINES = 5.0
"""Seconds to wait for the last lines of a worker that has ended."""


def launch(processes: Processes, folder: Path) -> dict[int, int] | None:
    """Run the workers to their end; return ``None``, or the exit codes of failed workers by rank.

    Raises:
        StageError: ``ProcessGroupTimeout``: the agents of the pods did not meet.
        Interrupted: SIGTERM was received; the workers have ended.
    """
    return _torchrun(processes, folder) if processes.per_node > 1 else _one(processes, folder)


def errors_of(folder: Path, local_rank: int) -> str:
    """Return what a worker wrote to standard error."""
    return "\n".join(path.read_text(errors="replace") for path in folder.glob(f"{_LOGS}/**/{local_rank}/stderr.log"))


def _one(processes: Processes, folder: Path) -> dict[int, int] | None:
    """Run one worker, without torchrun, whose agent would import torch in a second process."""
    errors = folder / _LOGS / "0" / "stderr.log"
    errors.parent.mkdir(parents=True)
    program = ["-m", _module()] if (archive := _archive()) is None else [archive]
    environment = {**os.environ, **processes.variables(), "GROUP_RANK": str(processes.node_rank)}
    worker = subprocess.Popen(  # noqa: S603 - this program
        [sys.executable, *program], env=environment, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
    )
    try:
        # In a thread: a process that the worker started, such as a compiler, may keep the pipe open after the worker's end.
        copying = threading.Thread(target=_copy, args=(worker.stderr, errors, processes.rank), daemon=True)
        copying.start()
        code = worker.wait()
        copying.join(_LAST_LINES)
    except BaseException:
        worker.terminate()
        try:
            worker.wait(_GRACE)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        raise
    return None if code == 0 else {processes.rank: code}


def _copy(lines: IO[str], target: Path, rank: int) -> None:
    """Copy a worker's standard error to a file and to this program's own, and close it."""
    with lines, target.open("w", encoding="utf-8", errors="replace", buffering=1) as copy:
        for line in lines:
            copy.write(line)
            sys.stderr.write(f"[rank {rank}]: {line}")


def _torchrun(processes: Processes, folder: Path) -> dict[int, int] | None:
    """Run several workers: torchrun's agent starts one for each process and stops all if one fails."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    program = ["--module", _module()] if (archive := _archive()) is None else [archive]
    where = (
        ["--master-addr", processes.address, "--master-port", processes.port or "29500"]
        if processes.address
        else ["--standalone"]
    )
    arguments = [
        "--nnodes", str(processes.nodes), "--nproc-per-node", str(processes.per_node), "--node-rank", str(processes.node_rank),
        "--max-restarts", "0", "--monitor-interval", "0.1", "--rdzv-conf", f"timeout={max(1, int(timeout().total_seconds()))}",
        "--tee", "2", "--log-dir", str(folder / _LOGS), *where, *program,
    ]  # fmt: skip
    os.environ["TORCHELASTIC_LOG_LINE_PREFIX_TEMPLATE"] = (
        "[rank ${rank}]: "  # only new versions of torchrun have an option for it
    )
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with agents_may_be_lost(
            processes.node_rank, processes.nodes, f"{processes.address or 'localhost'}:{processes.port or '29500'}"
        ):
            run.main(arguments)
    except ChildFailedError as error:
        return {rank: failure.exitcode for rank, failure in error.failures.items()}
    except SignalException:
        raise Interrupted from None
    finally:
        signal.signal(signal.SIGTERM, handler)
    return None


def _archive() -> str | None:
    """Return the path of the zip application that this program runs from, if it does."""
    archive = getattr(__spec__.loader, "archive", None)
    return None if archive is None else str(archive)


def _module() -> str:
    return __spec__.parent or ""
