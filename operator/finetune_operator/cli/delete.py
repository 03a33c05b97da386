"""``finetune delete``: a run, its children and, if asked for, its files."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

from finetune_operator.api.kinds import FINETUNERUN, JOB, POD, TRAINJOB
from finetune_operator.core import naming
from finetune_operator.core.run import Run
from finetune_operator.local.home import Home, HomeInUse
from finetune_operator.local.platform import NAMESPACE, local_platform, open_store, workspace_folder
from finetune_operator.local.secrets import LocalSecrets
from finetune_operator.loop.cluster import Cluster
from finetune_operator.loop.errors import NotFound

from . import exitcodes
from .get import unknown_run

_WAIT_SECONDS = 90.0
_POLL_SECONDS = 0.1


def delete_run(home: Path | None, name: str, *, purge: bool) -> int:
    """Delete a run. What it runs is stopped first, by the command that drives it or by this one."""
    place = Home.find(home)
    try:
        run = asyncio.run(_delete(place, name))
    except NotFound:
        print(unknown_run(place, name), file=sys.stderr)
        return exitcodes.NO_INPUT
    claim = (run.resolved.get("storage") or {}).get("claimName") or naming.claim_name(run.name)
    folder = workspace_folder(place, claim) / run.layout.root
    if purge:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"{name}: deleted, with its files")
    else:
        print(f"{name}: deleted" + (f"; its files stay in {folder}" if folder.exists() else ""))
    return exitcodes.OK


async def _delete(home: Home, name: str) -> Run:
    if not home.exists:
        raise NotFound(name)
    try:
        async with local_platform(home, LocalSecrets({})) as platform:
            return await _delete_from(platform.store, name)
    except HomeInUse:  # the command that holds the folder stops the processes
        store = open_store(home)
        try:
            return await _delete_from(store, name)
        finally:
            store.close()


async def _delete_from(cluster: Cluster, name: str) -> Run:
    run = Run.parse(await cluster.get(FINETUNERUN, NAMESPACE, name))
    await cluster.delete(FINETUNERUN, NAMESPACE, name, uid=run.uid)
    deadline = asyncio.get_running_loop().time() + _WAIT_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        left = [await cluster.list(kind, NAMESPACE, labels={naming.RUN_LABEL: name}, limit=1) for kind in (POD, JOB, TRAINJOB)]
        if not any(page.items for page in left):
            break
        await asyncio.sleep(_POLL_SECONDS)
    return run
