"""--allow-code for a run that another process drives."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.local_backend import LocalBackend
from finetune_operator.cli.options import RunOptions
from finetune_operator.local.home import Home
from finetune_operator.local.platform import open_store
from finetune_operator.loop.cluster import Cluster, Object


async def _change(_cluster: Cluster) -> Object:
    raise AssertionError("nothing is changed")


def test_the_process_that_drives_the_runs_decides_about_code(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.prepare()
    open_store(home).close()
    with home.locked(), pytest.raises(CommandError) as raised:
        LocalBackend(home).update(_change, "rerun requested", RunOptions(allow_code=True))
    (sentence,) = raised.value.lines
    assert sentence.startswith("--allow-code: process ")
    assert sentence.endswith("drives the runs of this folder, with its own option; repeat the command when it has ended.")
