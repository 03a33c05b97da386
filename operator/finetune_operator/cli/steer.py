"""``finetune suspend``, ``resume`` and ``rerun``: words to a run that is on its way, or at its end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from finetune_operator.api.kinds import FINETUNERUN
from finetune_operator.core.run import Run
from finetune_operator.local.home import Home, HomeInUse
from finetune_operator.local.platform import NAMESPACE, open_store
from finetune_operator.loop.apply import difference
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import NotFound

from . import exitcodes
from .assignments import apply_assignments
from .drive import Options, Refused, drive, edit, guarded
from .get import unknown_run

_Change = Callable[[Cluster], Awaitable[Object]]


def suspend_run(name: str, options: Options) -> int:
    """Stop what a run does, and hold it. Its stages are asked to end; what they have done stays."""

    async def change(cluster: Cluster) -> Object:
        run = await _find(cluster, options, name)
        _require_under_way(run, "there is nothing to suspend")
        return await edit(cluster, name, {"spec": {"suspend": True}})

    return _change(change, options, "is being suspended")


def resume_run(name: str, options: Options) -> int:
    """Let a suspended run go on, to its end."""

    async def change(cluster: Cluster) -> Object:
        run = await _find(cluster, options, name)
        _require_under_way(run, f"finetune rerun {name} does a part of it again")
        return await edit(cluster, name, {"spec": {"suspend": None}})

    return _change(change, options, "goes on")


def rerun_run(name: str, stage: str, id_: str | None, assignments: Sequence[str], options: Options) -> int:
    """Run a finished run again, from a stage on; ``assignments`` edit the sections of that stage and of those after it."""

    async def change(cluster: Cluster) -> Object:
        run = await _find(cluster, options, name)
        if not run.ended:
            raise Refused([f"{name}: has not ended yet; wait for its end."])
        word = id_ or f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        if (run.spec.get("rerun") or {}).get("id") == word:
            raise Refused([f"--id {word}: was used by the last rerun; choose another word."], exitcodes.USAGE)
        wanted = {**apply_assignments(run.spec, assignments), "rerun": {"id": word, "from": stage}}
        return await edit(cluster, name, {"spec": difference(run.spec, wanted)})

    return _change(change, options, f"begins again from {stage}")


async def _find(cluster: Cluster, options: Options, name: str) -> Run:
    try:
        return Run.parse(await cluster.get(FINETUNERUN, NAMESPACE, name))
    except NotFound:
        raise Refused([unknown_run(Home.find(options.home), name)], exitcodes.NO_INPUT) from None


def _require_under_way(run: Run, advice: str) -> None:
    if run.ended:
        raise Refused([f"{run.name}: has ended; {advice}."])


def _change(change: _Change, options: Options, words: str) -> int:
    """Change a run. Whoever drives the runs of the folder goes on with it: another command, or else this one."""

    def command() -> int:
        home = Home.find(options.home)
        if not home.exists:
            raise Refused([f"{home.root}: there are no runs here; use --home."], exitcodes.NO_INPUT)
        try:
            return drive(lambda platform: change(platform.store), options)
        except HomeInUse as other:
            run = Run.parse(asyncio.run(_change_only(home, change)))
            print(f"{run.name}: {words}; process {other.holder} sees to it.", file=sys.stderr)
            return exitcodes.OK

    return guarded(command)


async def _change_only(home: Home, change: _Change) -> Object:
    store = open_store(home)
    try:
        return await change(store)
    finally:
        store.close()
