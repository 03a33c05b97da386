"""``finetune rerun --id``: a rejected rerun is corrected under its own id, and no id is used twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.api.kinds import FINETUNERUN
from finetune_operator.cli.options import RunOptions, Target
from finetune_operator.cli.update import rerun_run
from finetune_operator.local.home import Home
from finetune_operator.local.platform import NAMESPACE, open_store
from world import MINIMAL, World


async def _ended(home: Home, rerun: dict[str, str], status: dict[str, Any]) -> None:
    store = open_store(home)
    spec = {**MINIMAL, "publish": {"uri": "oci://r/x"}, "rerun": rerun}
    metadata = {"name": "demo", "namespace": NAMESPACE}
    await store.create({"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": spec})
    await store.patch_status(FINETUNERUN, NAMESPACE, "demo", {"status": status})
    store.close()


async def _spec(home: Home) -> dict[str, Any]:
    store = open_store(home)
    found: dict[str, Any] = (await store.get(FINETUNERUN, NAMESPACE, "demo"))["spec"]
    store.close()
    return found


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A folder with a run that rerun ``done`` has ended, and whose rerun ``rejected`` cannot start."""
    home, world = Home(tmp_path), World.new()
    world.settle()
    home.prepare()
    asyncio.run(_ended(home, {"id": "rejected", "from": "gate"}, {**world.run["status"], "rerunId": "done"}))
    return home


def rerun(home: Home, id_: str, assignments: Sequence[str] = ()) -> int:
    with home.locked():
        where, options = Target(home=home.root), RunOptions(plain=True)
        return rerun_run("demo", where, options, stage="gate", id_=id_, assignments=assignments)


def test_a_rejected_rerun_is_corrected_under_its_own_id(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert rerun(home, "rejected", ["publish=null"]) == 0
    assert "demo: rerun from gate requested" in capsys.readouterr().err
    spec = asyncio.run(_spec(home))
    assert "publish" not in spec
    assert spec["rerun"] == {"id": "rejected", "from": "gate"}


@pytest.mark.parametrize(
    ("id_", "words"),
    [
        ("done", "--id done: the last rerun has this ID; choose another one."),
        ("rejected", "--id rejected: this rerun is already requested; change a field with --set, or choose another ID."),
    ],
)
def test_an_id_that_would_change_nothing_is_rejected(
    home: Home, capsys: pytest.CaptureFixture[str], id_: str, words: str
) -> None:
    assert rerun(home, id_) == 2
    assert capsys.readouterr().err == f"{words}\n"


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("gate.requirement=[]", "spec.gate.requirement: unknown field; did you mean requirements?"),
        ("gate.requirements[0].max=5", "spec.gate.requirements[0]: unknown field"),
        ("evaluation.holdouts=3", "spec.evaluation.holdouts: unknown field; did you mean holdout?"),
    ],
)
def test_a_field_that_does_not_exist_is_rejected(
    home: Home, capsys: pytest.CaptureFixture[str], assignment: str, sentence: str
) -> None:
    before = asyncio.run(_spec(home))
    assert rerun(home, "another", [assignment]) == 65
    assert sentence in capsys.readouterr().err
    assert asyncio.run(_spec(home)) == before
