"""``finetune logs``: what a stage printed, while it runs or long after."""

from __future__ import annotations

import asyncio

from finetune_operator.core.run import Run, StageRecord

from . import exitcodes
from .attempt_log import print_attempt
from .log_follow import POLL_SECONDS, follow_stage
from .objects import find_run
from .place import Place, Where, find_place
from .refusal import Refused, guarded

ALL_RANKS = "all"


def print_log(where: Where, name: str, stage: str | None, *, rank: str, follow: bool) -> int:
    """Print the log of a stage's last attempt, and with ``follow`` what it goes on to say, through all its attempts."""

    def command() -> int:
        wanted = _rank(rank)
        return asyncio.run(_print(find_place(where), name, stage, wanted, follow=follow))

    return guarded(command)


def _rank(text: str) -> int | None:
    if text == ALL_RANKS:
        return None
    if not text.isdecimal():
        raise Refused([f"--rank {text}: expected the number of a process, from 0, or {ALL_RANKS}."], exitcodes.USAGE)
    return int(text)


async def _print(place: Place, name: str, stage: str | None, rank: int | None, *, follow: bool) -> int:
    async with place.opened() as cluster:
        run = Run.parse(await find_run(place, cluster, name))
        record = _choose(run, stage)
        while follow and record is None and _may_come(run, stage):
            await asyncio.sleep(POLL_SECONDS)
            run = Run.parse(await find_run(place, cluster, name))
            record = _choose(run, stage)
        if record is None:
            known = ", ".join(entry.name for entry in run.stages.values() if entry.child_name) or "none yet"
            what = f"stage {stage} has no log" if stage else "no stage has run"
            raise Refused([f"{name}: {what}; stages with a log: {known}."], exitcodes.NO_INPUT)
        if follow and not run.ended and not record.ended:
            await follow_stage(place, cluster, run, record.name, rank)
        else:
            await print_attempt(place, cluster, run, record, rank)
    return exitcodes.OK


def _may_come(run: Run, stage: str | None) -> bool:
    """Whether the stage that was asked for may still run; a run that was not planned yet has no stages."""
    if run.ended:
        return False
    return stage is None or not run.stages or (stage in run.stages and not run.stages[stage].ended)


def _choose(run: Run, stage: str | None) -> StageRecord | None:
    """The stage that was asked for; else the one that failed, the one that runs, the one that ran last."""
    ran = [record for record in run.stages.values() if record.child_name]
    if stage is not None:
        return next((record for record in ran if record.name == stage), None)
    failed = (run.status.get("failure") or {}).get("stage")
    for record in ran:
        if record.name == failed or (failed is None and record.state == "Running"):
            return record
    return max(ran, key=lambda record: record.started_at or "", default=None)
