"""Runs of this machine that no process works on: commands show it, and how to continue."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from cli.test_wait import Driver, driver
from finetune_operator.cli.describe import describe_run
from finetune_operator.cli.get import RunFilter, get_runs
from finetune_operator.cli.logs import print_log
from finetune_operator.cli.options import RunOptions, Target
from finetune_operator.cli.run import run_file
from finetune_operator.local.home import Home, HomeInUse
from world import MINIMAL

HINT = "demo: stopped, no process works on it; continue it with: finetune resume demo --home "


@pytest.fixture
def stopped(tmp_path: Path) -> Driver:
    """A folder with a run in training that no process drives."""
    return driver(tmp_path, working={"training"})


def get(home: Home, output: str | None = None) -> int:
    return get_runs(Target(home=home.root), RunFilter(), output, watch=False)


def test_a_run_that_no_process_drives_is_shown_as_stopped(stopped: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    assert get(stopped.home) == 0
    printed = capsys.readouterr()
    assert "Training (stopped)" in printed.out
    assert printed.err == f"{HINT}{stopped.home.root}\n"
    assert describe_run(Target(home=stopped.home.root), "demo") == 0
    page = capsys.readouterr().out
    assert "Training (stopped)" in page
    assert f"finetune resume demo --home {stopped.home.root}" in page


def test_a_run_that_a_process_drives_is_not(stopped: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    with stopped.home.locked():
        assert get(stopped.home) == 0
        assert describe_run(Target(home=stopped.home.root), "demo") == 0
    printed = capsys.readouterr()
    assert "Training" in printed.out
    assert "stopped" not in printed.out + printed.err
    assert "finetune resume" not in printed.out + printed.err


def test_objects_are_printed_as_they_are(stopped: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    assert get(stopped.home, "yaml") == 0
    printed = capsys.readouterr()
    assert "phase: Training\n" in printed.out
    assert printed.err == ""


@pytest.mark.parametrize("spec", [MINIMAL, {**MINIMAL, "suspend": True}], ids=["ended", "suspended"])
def test_a_run_that_has_ended_or_is_suspended_is_not_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spec: dict[str, object]
) -> None:
    assert get(driver(tmp_path, spec=spec).home) == 0
    printed = capsys.readouterr()
    assert ("Succeeded" in printed.out or "Suspended" in printed.out, printed.err) == (True, "")


def test_the_lock_shows_whether_a_process_drives_the_runs(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert not home.is_locked
    home.prepare()
    with home.locked():
        assert home.is_locked
        with pytest.raises(HomeInUse), home.locked():
            pass
    assert not home.is_locked


def test_looking_at_the_lock_never_keeps_a_command_from_taking_it(tmp_path: Path) -> None:
    home, over = Home(tmp_path), threading.Event()
    home.prepare()

    def look() -> None:
        while not over.is_set():
            assert home.is_locked in (True, False)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(50):
            with home.locked():
                time.sleep(0)
    finally:
        over.set()
        looking.join()


def test_an_unknown_stage_is_rejected_with_the_stages_that_exist(stopped: Driver, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_log(Target(home=stopped.home.root), "demo", "trainig", rank="0", follow=False) == 66
    printed = capsys.readouterr().err
    assert printed.startswith("--stage trainig: no such stage; did you mean training? Stages: ")
    assert {"dataset", "training", "gate"} <= set(printed.rstrip("\n").partition("Stages: ")[2].split(", "))
    assert print_log(Target(home=stopped.home.root), "demo", "foo", rank="0", follow=False) == 66
    assert capsys.readouterr().err.startswith("--stage foo: no such stage; choose one of: workspace, dataset, ")
    assert print_log(Target(home=stopped.home.root), "demo", "evaluation", rank="0", follow=False) == 66
    assert "demo: stage evaluation has no log; choose one of the stages with a log: " in capsys.readouterr().err


def test_the_same_file_after_a_failure_names_the_rerun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = driver(tmp_path)
    status = {**found.world.run["status"], "phase": "Failed"}
    status["failure"] = {"stage": "training", "reason": "OutOfMemoryGPU", "message": "no memory", "cause": "OutOfMemory"}
    asyncio.run(found.write_status(status))
    file = tmp_path / "run.yaml"
    metadata = "apiVersion: finetunerun.io/v1alpha1\nkind: FineTuneRun\nmetadata: {name: demo}\n"
    file.write_text(f"{metadata}spec: {found.world.run['spec']!r}\n".replace("True", "true").replace("False", "false"))
    assert run_file(file, (), Target(home=tmp_path), RunOptions(plain=True)) == 65
    command = f"run it again with: finetune rerun demo --home {tmp_path} --from training (with --set FIELD=VALUE for each field that you change)\n"
    printed = capsys.readouterr()
    assert f"demo: the run has failed before; {command}" in printed.err
    assert f"\n{command}" in printed.out
