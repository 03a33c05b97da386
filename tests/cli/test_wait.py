"""``--wait``, and the output without it, when another command drives the runs of the folder."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli.workdir import wait_for
from finetune_operator.api.kinds import FINETUNERUN
from finetune_operator.cli.options import RunOptions, Target
from finetune_operator.cli.update import rerun_run, resume_run, suspend_run
from finetune_operator.local.home import Home
from finetune_operator.local.platform import NAMESPACE, open_store
from finetune_operator.loop.apply import difference
from world import MINIMAL, World

WAIT = RunOptions(plain=True, wait=True)


class Driver:
    """The command that drives the run of a folder: the pure core decides, and stages succeed or are held.

    Every program but those of ``working`` ends at once.
    """

    def __init__(self, home: Home, world: World, working: set[str]) -> None:
        self.home, self.world, self.working = home, world, working
        self._stop = threading.Event()

    async def write(self) -> None:
        """Create the run with the world's spec and status."""
        store = open_store(self.home)
        await store.create({
            "apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": {"name": "demo", "namespace": NAMESPACE},
            "spec": self.world.run["spec"],
        })  # fmt: skip
        await store.patch_status(FINETUNERUN, NAMESPACE, "demo", {"status": self.world.run["status"]})
        store.close()

    async def write_status(self, status: dict[str, Any]) -> None:
        """Replace the status of the run."""
        store = open_store(self.home)
        await store.patch_status(FINETUNERUN, NAMESPACE, "demo", {"status": status})
        store.close()

    def step(self, document: dict[str, Any]) -> dict[str, Any]:
        """Reconcile the run once; the status as it is then."""
        metadata = {**self.world.run["metadata"], "generation": document["metadata"]["generation"]}
        self.world.run = {**self.world.run, "metadata": metadata, "spec": document["spec"]}
        decision = self.world.decide()
        self.world.write_status(decision.status)
        for effect in decision.effects:
            self.world.apply_effect(effect)
        for ref in self.world.active():
            if self.world.stage_of(ref) not in self.working:
                self.world.finish(ref)
        status: dict[str, Any] = self.world.run["status"]
        return status

    async def _drive(self) -> None:
        store = open_store(self.home)
        while not self._stop.is_set():
            document = await store.get(FINETUNERUN, NAMESPACE, "demo")
            changes = difference(document["status"], self.step(document))
            await store.patch_status(FINETUNERUN, NAMESPACE, "demo", {"status": changes})
            await asyncio.sleep(0.05)
        store.close()

    @contextmanager
    def driving(self) -> Iterator[None]:
        """Drive the run inside the context, and hold the folder."""
        with self.home.locked():
            thread = threading.Thread(target=asyncio.run, args=(self._drive(),))
            thread.start()
            try:
                yield
            finally:
                self._stop.set()
                thread.join()


def driver(folder: Path, spec: dict[str, Any] | None = None, working: set[str] | None = None) -> Driver:
    """A folder with a run that has come as far as the programs of ``working``, or to its end."""
    found = Driver(Home(folder), World.new(spec), working or set())
    for _ in range(30):
        found.step(found.world.run)
    found.home.prepare()
    asyncio.run(found.write())
    return found


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A folder with a run that has ended."""
    return driver(tmp_path).home


def test_a_rerun_reports_which_process_runs_it(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with home.locked():
        code = rerun_run("demo", Target(home=home.root), RunOptions(plain=True), stage="gate", id_="again", assignments=())
    result = capsys.readouterr()
    follow = f"follow it with: finetune get -w demo --home {home.root}"
    assert (code, result.out) == (0, "")
    assert result.err == f"demo: rerun from gate requested; process {os.getpid()} carries it out; {follow}\n"


def state_of(found: Driver, stage: str) -> str:
    states = {record["name"]: record["state"] for record in found.world.run["status"].get("stages", ())}
    return str(states.get(stage))


def reason_of(found: Driver, stage: str) -> str:
    reasons = {record["name"]: record.get("reason") for record in found.world.run["status"].get("stages", ())}
    return str(reasons[stage])


def test_a_rerun_is_followed_to_the_end_of_its_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = driver(tmp_path)
    with found.driving():
        code = rerun_run("demo", Target(home=tmp_path), WAIT, stage="gate", id_="again", assignments=())
    assert code == 0
    assert found.world.run["status"]["rerunId"] == "again"
    assert "registered  osft-model 1.0.0 (MLflow version 1)" in capsys.readouterr().out


def test_a_rerun_prints_only_the_stages_of_its_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = driver(tmp_path)
    with found.driving():
        rerun_run(
            "demo",
            Target(home=tmp_path),
            WAIT,
            stage="gate",
            id_="again",
            assignments=("gate.requirements=[{metric: holdout.loss, max: 90}]",),
        )
    lines = [line.split()[1] for line in capsys.readouterr().out.splitlines() if re.match(r"\d\d:\d\d:\d\d ", line)]
    assert "gate:" in lines
    assert set(lines) <= {"gate:", "registration:", "registry-check:", "workspace:"}


def test_a_value_that_this_machine_rejects_is_not_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = driver(tmp_path)
    before = asyncio.run(read_spec(found.home))
    for assignment, words in (
        ("training.liger=true", "NotPossibleHere: spec.training.liger: true is not possible here"),
        ("publish={uri: 'oci://r/x'}", "Unsupported: spec.publish: this release does not support this field; remove it."),
        ("evaluation.tasks=[]", "InvalidSpec: spec.evaluation.tasks: is empty, and"),
    ):
        again = ("training.epochs=2", "dataset.trainSplit=1", assignment)
        with found.home.locked():
            assert rerun_run("demo", Target(home=tmp_path), WAIT, stage="dataset", id_="again", assignments=again) == 65
        first, last = capsys.readouterr().err.splitlines()
        assert first.startswith(words)
        assert last == "demo: nothing was changed; correct the value"
        assert asyncio.run(read_spec(found.home)) == before


async def read_spec(home: Home) -> dict[str, Any]:
    store = open_store(home)
    spec: dict[str, Any] = (await store.get(FINETUNERUN, NAMESPACE, "demo"))["spec"]
    store.close()
    return spec


def test_the_end_of_the_round_decides_the_exit_code(tmp_path: Path) -> None:
    found = driver(tmp_path)
    with found.driving():
        strict = "gate.requirements=[{metric: holdout.bits_per_byte, max: 0.001}]"
        assert rerun_run("demo", Target(home=tmp_path), WAIT, stage="gate", id_="strict", assignments=(strict,)) == 3


def test_a_suspension_succeeds_once_the_stages_have_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = driver(tmp_path, working={"training"})
    assert state_of(found, "training") == "Running"
    with found.driving():
        assert suspend_run("demo", Target(home=tmp_path), WAIT) == 0
    assert (state_of(found, "training"), reason_of(found, "training")) == ("Running", "Suspended")
    assert "demo: suspended; continue it with: finetune resume demo" in capsys.readouterr().err


def test_a_suspension_by_another_command_is_no_success(tmp_path: Path) -> None:
    found = driver(tmp_path, spec={**MINIMAL, "suspend": True}, working={"training"})

    def suspend() -> None:
        wait_for(lambda: state_of(found, "training") == "Running")
        suspend_run("demo", Target(home=tmp_path), RunOptions())

    with found.driving():
        other = threading.Thread(target=suspend)
        other.start()
        assert resume_run("demo", Target(home=tmp_path), WAIT) == 130
        other.join()


def test_a_resumed_run_is_followed_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = driver(tmp_path, spec={**MINIMAL, "suspend": True})
    assert "finishedAt" not in found.world.run["status"]
    with found.driving():
        assert resume_run("demo", Target(home=tmp_path), WAIT) == 0
    assert "registered  osft-model 1.0.0 (MLflow version 1)" in capsys.readouterr().out
