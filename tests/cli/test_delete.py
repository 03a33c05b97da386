"""``finetune delete`` of a run that another process drives."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

from cli.test_wait import Driver, driver
from finetune_operator.api.kinds import POD
from finetune_operator.cli import local_backend
from finetune_operator.cli.delete import delete_run
from finetune_operator.cli.options import Target
from finetune_operator.core.naming import RUN_LABEL
from finetune_operator.local.platform import NAMESPACE, open_store


@pytest.fixture
def found(tmp_path: Path) -> Driver:
    """A folder with an ended run, one pod of it, and its files."""
    made = driver(tmp_path)
    asyncio.run(_create_pod(made))
    return made


async def _create_pod(found: Driver) -> None:
    store = open_store(found.home)
    metadata = {"name": "p", "namespace": NAMESPACE, "labels": {RUN_LABEL: "demo"}}
    container = {"name": "c", "image": "i", "command": ["true"]}
    await store.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}})
    store.close()


async def _remove_pod(found: Driver) -> None:
    store = open_store(found.home)
    await store.delete(POD, NAMESPACE, "p", grace_seconds=0)
    store.close()


def test_the_process_that_stops_the_stages_is_named(found: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> None:
        time.sleep(0.5)
        asyncio.run(_remove_pod(found))

    with found.home.locked():
        other = threading.Thread(target=stop)
        other.start()
        assert delete_run(Target(home=found.home.root), "demo", purge=False) == 0
        other.join()
    sentence = f"demo: deleted; process {os.getpid()}, which drives the runs of this folder, has stopped its stages\n"
    assert capsys.readouterr().out == sentence


def test_files_are_kept_while_a_stage_runs(
    found: Driver, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_backend, "_DELETE_SECONDS", 0.0)
    with found.home.locked():
        assert delete_run(Target(home=found.home.root), "demo", purge=True) == 75
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        f"demo: deleted, but a stage has not stopped within 0 s, so that its files are kept; end process {os.getpid()}.\n"
    )


def test_a_run_without_stages_names_no_process(found: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(_remove_pod(found))
    with found.home.locked():
        assert delete_run(Target(home=found.home.root), "demo", purge=True) == 0
    assert capsys.readouterr().out == "demo: deleted, with its files\n"
