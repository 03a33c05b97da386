"""Program of stage *training*: a process does all the work, a share of it as a worker, or supervises workers.

A pod with one of several processes has a supervisor, too: NCCL's watchdog ends a process that lost another one by SIGABRT, and only
another process can report that.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from finetune_contract.result import Result
from finetune_stages.sdk import Context, Finished, Reuse, StageError, run_stage, verify_seal

from .processes import Processes, require_devices
from .supervise import FOLDER_VARIABLE, become_worker, ended_in_time, hand_over, supervise

_STAGES = ("training",)
_REUSE = Reuse(directories=("final_model", "adapter", "checkpoints/*"))


def main() -> int:
    """Run the stage and return its exit code."""
    code = _worker() if FOLDER_VARIABLE in os.environ else _main()
    if "torch" in sys.modules:
        # A normal exit takes a second to unload torch, and waits for threads that may wait for lost peers.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _main() -> int:
    try:
        processes = Processes.from_environment(os.environ)
    except StageError as error:
        failure = error
        return run_stage(_STAGES, lambda _context: _raise(failure), outputs_exist)
    work = supervise if processes.world > 1 else _alone
    return run_stage(_STAGES, lambda context: work(context, processes), outputs_exist, processes.rank, reuse=_REUSE)


def outputs_exist(context: Context, result: Result) -> bool:
    """Return whether the model of an earlier result, and its adapter, are still in the run's folder."""
    outputs = {"digest": context.layout.final_model, "adapterDigest": context.layout.adapter}
    digests = {path: result.outputs.get(name) for name, path in outputs.items()}
    seals = {path: verify_seal(context.path(path), content=False) for path, digest in digests.items() if digest}
    return bool(digests[context.layout.final_model]) and all(
        seal is not None and seal.digest == digests[path] for path, seal in seals.items()
    )


def _raise(error: StageError) -> NoReturn:
    raise error


def _alone(context: Context, processes: Processes) -> Finished:
    from .work import train

    require_devices(processes)
    with ended_in_time(worker=False):
        return train(context, processes)


def _worker() -> int:
    from .work import train

    processes = Processes.of_worker(os.environ)
    become_worker(processes)

    def share(context: Context) -> Finished:
        with ended_in_time(worker=True):
            finished = train(context, processes)
        if processes.rank == 0:
            hand_over(context, finished)
        return finished

    return run_stage(_STAGES, share, outputs_exist, processes.rank, supervised=True)
