"""``finetune logs``: the log of a stage."""

from __future__ import annotations

import asyncio
import difflib

from finetune_operator.core import stages
from finetune_operator.core.run import Run, StageStatus

from . import exit_status
from .attempt_log import print_attempt
from .backend import Backend
from .backend_selection import find_backend
from .errors import CommandError, handle_errors
from .log_follow import POLL_SECONDS, follow_stage
from .objects import find_run
from .options import Target

ALL_RANKS = "all"


def print_log(target: Target, name: str, stage: str | None, *, rank: str, follow: bool) -> int:
    """Print the log of a stage's last attempt; with ``follow``, until the stage ends, through all its attempts."""

    def command() -> int:
        selected_rank = _rank(rank)
        return asyncio.run(_print(find_backend(target), name, stage, selected_rank, follow=follow))

    return handle_errors(command)


def _rank(text: str) -> int | None:
    if text == ALL_RANKS:
        return None
    if not text.isdecimal():
        raise CommandError([f"--rank {text}: not a rank; give a number from 0, or {ALL_RANKS}."], exit_status.USAGE)
    return int(text)


async def _print(backend: Backend, name: str, stage: str | None, rank: int | None, *, follow: bool) -> int:
    async with backend.connect() as cluster:
        run = Run.parse(await find_run(backend, cluster, name))
        _check_stage(run, stage)
        stage_status = _choose(run, stage)
        while follow and stage_status is None and _may_start(run, stage):
            await asyncio.sleep(POLL_SECONDS)
            run = Run.parse(await find_run(backend, cluster, name))
            _check_stage(run, stage)
            stage_status = _choose(run, stage)
        if stage_status is None:
            raise CommandError([_no_log(run, stage, backend.flags)], exit_status.NO_INPUT)
        if follow and not run.ended and not stage_status.ended:
            await follow_stage(backend, cluster, run, stage_status.name, rank)
        else:
            await print_attempt(backend, cluster, run, stage_status, rank)
    return exit_status.OK


def _check_stage(run: Run, stage: str | None) -> None:
    """Raise an error if the run has no stage of that name. A run that was not planned yet has the stages of this release."""
    known = tuple(run.stages or stages.GRAPH.definitions)
    if stage is not None and stage not in known:
        near = difflib.get_close_matches(stage, known, n=1)
        meant = f"did you mean {near[0]}? Stages" if near else "choose one of"
        raise CommandError([f"--stage {stage}: no such stage; {meant}: {', '.join(known)}"], exit_status.NO_INPUT)


def _no_log(run: Run, stage: str | None, flags: str) -> str:
    with_log = ", ".join(entry.name for entry in run.stages.values() if entry.child_name)
    if with_log:
        remedy = f"choose one of the stages with a log: {with_log}"
    elif run.ended:
        remedy = f"show why the run ended with: finetune describe {run.name}{flags}"
    else:
        remedy = "try again when a stage has started"
    if stage is None:
        return f"{run.name}: no stage has started; {remedy}"
    return f"{run.name}: stage {stage} has no log; {remedy}"


def _may_start(run: Run, stage: str | None) -> bool:
    """Return whether the requested stage may still run. A run that was not planned yet has no stages."""
    if run.ended:
        return False
    return stage is None or not run.stages or not run.stages[stage].ended


def _choose(run: Run, stage: str | None) -> StageStatus | None:
    """Return the requested stage; by default the one that failed, else the one that runs, else the one that ran last."""
    ran = [stage_status for stage_status in run.stages.values() if stage_status.child_name]
    if stage is not None:
        return next((stage_status for stage_status in ran if stage_status.name == stage), None)
    failed = (run.status.get("failure") or {}).get("stage")
    for stage_status in ran:
        if stage_status.name == failed or (failed is None and stage_status.state == "Running"):
            return stage_status
    return max(ran, key=lambda stage_status: stage_status.started_at or "", default=None)
