"""Program of stages *training* and *engine-check*.

The check is one process. Of a training, a process chooses the engine, and does all the work, a share of it as a worker, or
supervises workers.

A pod with one of several processes has a supervisor, too: NCCL's watchdog ends a process that lost another one by SIGABRT, and only
another process can report that.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import NoReturn

from finetune_contract.codec import decode
from finetune_contract.documents import TrainingInputs
from finetune_contract.result import Result, TrainingOutputs
from finetune_stages.sdk import Context, Finished, Reuse, StageError, run_stage, verify_seal
from finetune_stages.sdk.exporter import Exporter, exporting, relay

from . import engine_check
from .engines import Engine, choose
from .processes import Processes, require_devices
from .supervise import FOLDER_VARIABLE, become_worker, ended_in_time, hand_over, supervise

_STAGES = ("training", engine_check.STAGE)
_LONGEST_REASON = 300
"""Characters: the outputs are a part of the termination message, which is limited."""
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
    with exporting(os.environ if processes.node_rank == 0 else {}) as exporter:
        return run_stage(
            _STAGES, lambda context: _followed(context, exporter, processes), outputs_exist, processes.rank,
            reuse=_REUSE, on_report=exporter.report, warnings=exporter.warnings,
        )  # fmt: skip


def _followed(context: Context, exporter: Exporter, processes: Processes) -> Finished:
    """Check the image, or train. If training fails, the result has the progress of the worker that reports."""
    if context.document.stage == engine_check.STAGE:
        return engine_check.check(context)
    try:
        return _train(context, processes)
    finally:
        context.last_progress = context.last_progress or exporter.newest()


def _train(context: Context, processes: Processes) -> Finished:
    inputs = context.inputs(TrainingInputs)
    engine = choose(inputs, context.document.explicit or (), processes.world, context.path(context.layout.base_model))
    print("\n".join((f"training: engine {engine.name}: {engine.reason}", *engine.notes())), flush=True)
    if engine.installed is not None:
        from .training_hub.work import train

        require_devices(processes)
        finished = train(context, processes, engine.installed)
    else:
        finished = supervise(context, processes) if processes.world > 1 else _alone(context, processes)
    return _with_engine(finished, engine)


def _with_engine(finished: Finished, engine: Engine) -> Finished:
    """Return the result with the engine; pods other than the first have none."""
    if not finished.outputs:
        return finished
    outputs = finished.outputs if isinstance(finished.outputs, TrainingOutputs) else decode(TrainingOutputs, finished.outputs)
    about = replace(outputs, engine=engine.name, engine_reason=engine.reason[:_LONGEST_REASON], versions=engine.versions)
    return replace(finished, outputs=about, warnings=(*finished.warnings, *engine.warnings()))


def outputs_exist(context: Context, result: Result) -> bool:
    """Return whether the model of an earlier result, and its adapter, are still in the run's folder.

    Results of the check are never reused: the image may be another one.
    """
    if context.document.stage == engine_check.STAGE:
        return False
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

    on_report = relay(os.environ) if processes.rank == 0 else None
    return run_stage(_STAGES, share, outputs_exist, processes.rank, supervised=True, on_report=on_report)
