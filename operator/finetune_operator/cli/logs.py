"""``finetune logs``: what a stage printed, while it runs or long after."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from finetune_contract.progress import MARK, last
from finetune_operator.api.kinds import FINETUNERUN, POD
from finetune_operator.core import naming
from finetune_operator.core.observation import PodReport
from finetune_operator.core.run import Run, StageRecord
from finetune_operator.local.home import Home
from finetune_operator.local.platform import NAMESPACE, open_store, workspace_folder
from finetune_operator.loop.cluster import Object
from finetune_operator.loop.errors import NotFound

from . import exitcodes
from .get import unknown_run
from .stages_view import progress_text

_POLL_SECONDS = 0.2


def print_log(home: Path | None, name: str, stage: str | None, *, rank: int, follow: bool) -> int:
    """Print the log of a stage's last attempt."""
    place = Home.find(home)
    try:
        run = asyncio.run(_load(place, name))
    except NotFound:
        print(unknown_run(place, name), file=sys.stderr)
        return exitcodes.NO_INPUT
    record = _choose(run, stage)
    if record is None:
        known = ", ".join(entry.name for entry in run.stages.values() if entry.child_name) or "none yet"
        print(
            f"{name}: {f'stage {stage} has no log' if stage else 'no stage has run'}; stages with a log: {known}.",
            file=sys.stderr,
        )
        return exitcodes.NO_INPUT
    path = _find_log(place, run, record, rank)
    if path is None:
        print(f"{name}: the log of stage {record.name}, rank {rank}, is not there.", file=sys.stderr)
        return exitcodes.NO_INPUT
    for text in _lines(path, (lambda: _still_runs(place, name, record.name)) if follow else (lambda: False)):
        print(text, flush=follow)
    return exitcodes.OK


async def _load(home: Home, name: str) -> Run:
    if not home.exists:
        raise NotFound(name)
    store = open_store(home)
    try:
        return Run.parse(await store.get(FINETUNERUN, NAMESPACE, name))
    finally:
        store.close()


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


def _find_log(home: Home, run: Run, record: StageRecord, rank: int) -> Path | None:
    """The process's own log as long as its pod is kept, then the copy in the workspace."""
    for pod in asyncio.run(_pods(home, run, record)):
        path: Path = home.pods / pod["metadata"]["uid"] / "log"
        if PodReport.parse(pod).rank == rank and path.exists():
            return path
    claim = (run.resolved.get("storage") or {}).get("claimName") or naming.claim_name(run.name)
    kept = workspace_folder(home, claim) / run.layout.log(record.name, record.this_attempt, rank)
    return kept if kept.exists() else None


async def _pods(home: Home, run: Run, record: StageRecord) -> list[Object]:
    store = open_store(home)
    try:
        page = await store.list(POD, run.namespace, labels=naming.labels(run, record.name, record.this_attempt))
    finally:
        store.close()
    return page.items


def _still_runs(home: Home, name: str, stage: str) -> bool:
    try:
        record = asyncio.run(_load(home, name)).stages.get(stage)
    except NotFound:
        return False
    return record is not None and record.state == "Running"


def _lines(path: Path, go_on: Callable[[], bool]) -> Iterator[str]:
    """The lines of a log, progress marks as texts; new ones as long as ``go_on`` says so."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        rest = ""
        while True:
            more = go_on()
            rest += stream.read()
            *whole, rest = rest.split("\n")
            yield from (_readable(line) for line in whole)
            if not more:
                if rest:
                    yield _readable(rest)
                return
            time.sleep(_POLL_SECONDS)


def _readable(line: str) -> str:
    if not line.startswith(MARK):
        return line
    progress = last(line)
    if progress is None:
        return line
    shown = progress_text({
        "step": progress.step, "totalSteps": progress.total_steps, "loss": progress.loss, "note": progress.note,
        "tokensPerSecond": progress.tokens_per_second, "etaSeconds": progress.eta_seconds,
    })  # fmt: skip
    return f"{progress.percent:3d}% {shown}"
