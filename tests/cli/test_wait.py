"""``--wait``, and what a command says without it, where another command drives the runs of the folder."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.kinds import FINETUNERUN
from finetune_operator.cli.local_place import LocalPlace
from finetune_operator.cli.place import Options, Where
from finetune_operator.cli.steer import rerun_run
from finetune_operator.local.home import Home
from finetune_operator.local.platform import NAMESPACE, open_store
from finetune_operator.loop.cluster import Cluster
from world import World


async def _write(home: Home, status: dict[str, Any]) -> None:
    store = open_store(home)
    await store.create({
        "apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": {"name": "demo", "namespace": NAMESPACE},
        "spec": {"dataset": {"uri": "/data.jsonl"}},
    })  # fmt: skip
    await store.patch_status(FINETUNERUN, NAMESPACE, "demo", {"status": status})
    store.close()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A folder with a run that has ended."""
    home, world = Home(tmp_path), World.new()
    world.settle()
    home.prepare()
    asyncio.run(_write(home, world.run["status"]))
    return home


def test_a_rerun_says_who_does_it(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with home.locked():
        code = rerun_run("demo", Where(home=home.root), Options(plain=True), stage="gate", id_="again", assignments=())
    said = capsys.readouterr()
    follow = f"follow it with finetune get -w demo --home {home.root}"
    assert (code, said.out) == (0, "")
    assert said.err == f"demo: rerun from gate requested; process {os.getpid()} sees to it; {follow}\n"


def test_with_wait_it_is_followed_to_its_end(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    async def nothing(cluster: Cluster) -> Any:
        return await cluster.get(FINETUNERUN, NAMESPACE, "demo")

    with home.locked():
        assert LocalPlace.find(home.root).steer(nothing, "", Options(plain=True, wait=True)) == 0
    assert "registered  osft-model 1.0.0 (MLflow version 1)" in capsys.readouterr().out
