"""``finetune logs``: a stage that does not exist."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cli.test_wait import driver
from finetune_operator.cli.logs import print_log
from finetune_operator.cli.options import Target
from finetune_operator.core import stages
from world import MINIMAL


@pytest.mark.parametrize("follow", [False, True], ids=["once", "follow"])
@pytest.mark.parametrize(
    ("stage", "words"), [("foo", "choose one of"), ("", "choose one of"), ("trainning", "did you mean training? Stages")]
)
@pytest.mark.parametrize("planned", [True, False])
def test_a_stage_that_does_not_exist_is_one_sentence_with_the_stages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str, words: str, follow: bool, planned: bool
) -> None:
    found = driver(tmp_path, spec=MINIMAL)
    if not planned:
        found.world.run = {**found.world.run, "status": {}}
        (tmp_path / "store.db").unlink()
        asyncio.run(found.write())
    listed = (
        ", ".join(stages.GRAPH.definitions)
        if not planned
        else ", ".join(one["name"] for one in found.world.run["status"]["stages"])
    )
    assert print_log(Target(home=tmp_path), "demo", stage, rank="0", follow=follow) == 66
    assert capsys.readouterr().err == f"--stage {stage}: no such stage; {words}: {listed}\n"
