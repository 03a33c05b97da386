"""``finetune logs``: what a stage printed, while it runs or long after."""

from __future__ import annotations

import asyncio

from finetune_operator.core.run import Run, StageStatus

from . import exitcodes
from .attempt_log import print_attempt
from .backend import Backend, Target, find_backend
from .errors import CommandError, guarded
from .log_follow import POLL_SECONDS, follow_stage
from .objects import find_run

ALL_RANKS = "all"


def print_log(where: Target, name: str, stage: str | None, *, rank: str, follow: bool) -> int:
    """Print the log of a stage's last attempt, and with ``follow`` what it goes on to say, through all its attempts."""

    def command() -> int:
        wanted = _rank(rank)
        return asyncio.run(_print(find_backend(where), name, stage, wanted, follow=follow))

    return guarded(command)


def _rank(text: str) -> int | None:
    if text == ALL_RANKS:
        return None
    if not text.isdecimal():
        raise CommandError([f"--rank {text}: expected the number of a process, from 0, or {ALL_RANKS}."], exitcodes.USAGE)
    return int(text)


async def _print(backend: Backend, name: str, stage: str | None, rank: int | None, *, follow: bool) -> int:
    async with backend.opened() as cluster:
        run = Run.parse(await find_run(backend, cluster, name))
        stage_status = _choose(run, stage)
        while follow and stage_status is None and _may_come(run, stage):
            await asyncio.sleep(POLL_SECONDS)
            run = Run.parse(await find_run(backend, cluster, name))
            stage_status = _choose(run, stage)
        if stage_status is None:
            known = ", ".join(entry.name for entry in run.stages.values() if entry.child_name) or "none yet"
            what = f"stage {stage} has no log" if stage else "no stage has run"
            raise CommandError([f"{name}: {what}; stages with a log: {known}."], exitcodes.NO_INPUT)
        if follow and not run.ended and not stage_status.ended:
            await follow_stage(backend, cluster, run, stage_status.name, rank)
        else:
            await print_attempt(backend, cluster, run, stage_status, rank)
    return exitcodes.OK


def _may_come(run: Run, stage: str | None) -> bool:
    """Whether the stage that was asked for may still run; a run that was not planned yet has no stages."""
    if run.ended:
        return False
    return stage is None or not run.stages or (stage in run.stages and not run.stages[stage].ended)


def _choose(run: Run, stage: str | None) -> StageStatus | None:
    """The stage that was asked for; else the one that failed, the one that runs, the one that ran last."""
    ran = [stage_status for stage_status in run.stages.values() if stage_status.child_name]
    if stage is not None:
        return next((stage_status for stage_status in ran if stage_status.name == stage), None)
    failed = (run.status.get("failure") or {}).get("stage")
    for stage_status in ran:
        if stage_status.name == failed or (failed is None and stage_status.state == "Running"):
            return stage_status
    return max(ran, key=lambda stage_status: stage_status.started_at or "", default=None)
