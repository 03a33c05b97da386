"""The gate on real scores, and the commands that control a run: rerun, clone, suspend, resume."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.workdir import CommandResult, Workdir, done_stages, stage_processes, state_of, status_of, wait_for
from model_registry_server import ModelRegistryServer

Spec = Callable[..., dict[str, Any]]

STRICT = {"requirements": [{"metric": "holdout.bits_per_byte", "max": 0.001}]}
STRICT_TEXT = "[{metric: holdout.bits_per_byte, max: 0.001}]"
QUICK = {"enabled": False, "baseline": False}


@pytest.fixture(scope="module")
def rejected_run(tmp_path_factory: pytest.TempPathFactory, small: Spec) -> tuple[Workdir, CommandResult]:
    """A run whose gate nothing can pass."""
    workdir = Workdir(tmp_path_factory.mktemp("desk"))
    workdir.write({**small(evaluation={"baseline": False}), "gate": STRICT}, labels={"finetunerun.io/experiment": "trial"})
    return workdir, workdir.finetune("run", "run.yaml")


@pytest.mark.xdist_group("judged")
class TestARunThatTheGateRejects:
    def test_a_rejected_model_is_reported_and_kept(self, rejected_run: tuple[Workdir, CommandResult]) -> None:
        workdir, result = rejected_run
        assert result.code == 3, result.out + result.err
        assert "gate rejected the model; its files are kept" in result.out
        assert "at most 0.001 is allowed; missed by" in result.out
        status = status_of(workdir)
        assert status["phase"] == "Rejected"
        assert "registry" not in status
        assert (workdir.run_folder() / "training/final_model/config.json").exists()
        assert not (workdir.workspace / "mlflow.db").exists()

    def test_get_shows_the_scores_of_all_runs(self, rejected_run: tuple[Workdir, CommandResult]) -> None:
        out = rejected_run[0].finetune("get").out
        head, line = out.splitlines()[:2]
        assert head.split() == ["NAME", "ALGORITHM", "PHASE", "PROGRESS", "ROWS", "LOSS", "holdout.bits_per_byte", "MODEL", "AGE"]
        assert line.split()[:3] == ["demo", "osft", "Rejected"]

    def test_a_clone_has_the_same_spec_under_another_name(self, rejected_run: tuple[Workdir, CommandResult]) -> None:
        workdir, _ = rejected_run
        result = workdir.finetune("clone", "demo", "--set", "training.epochs=3", "--set", "spec.gate=null", "--dry-run")
        assert result.code == 0, result.err
        copy = yaml.safe_load(result.out)
        old = workdir.finetune("get", "demo", "-o", "json").object
        assert copy["metadata"] == {"name": "demo-2", "labels": {"finetunerun.io/experiment": "trial"}}
        assert copy["spec"]["training"] == {**old["spec"]["training"], "epochs": 3}
        assert "gate" not in copy["spec"]
        assert workdir.finetune("get").out.count("demo") == 1, "a dry run makes nothing"

    @pytest.mark.parametrize(
        ("words", "code", "sentence"),
        [
            (["clone", "missing"], 66, "missing: no run with this name in"),
            (["clone", "demo", "--set", "epochs"], 2, "--set epochs: not of the form PATH=VALUE; write, for example, --set training.epochs=3."),
            (["clone", "demo", "--set", "training.epochs=[1"], 2, "--set training.epochs=[1: the value is not YAML:"),
            (["clone", "demo", "--set", "dataset.uri.x=1"], 2, "spec.dataset.uri is not an object; set the whole field."),
            (["clone", "demo", "--set", "training.epoch=3"], 65, "spec.training.epoch: unknown field; did you mean epochs?"),
            (["clone", "demo", "--name", "Demo"], 65, "metadata.name"),
            (["rerun", "demo", "--from", "gate", "--set", "training.epochs=3"], 65, "spec.training is frozen since the run started"),
            (["rerun", "demo", "--from", "gate", "--id", "a b"], 65, "demo: nothing was changed; correct the value\n"),
            (["suspend", "demo"], 65, "demo: the run has ended; run it again with: finetune rerun demo --from STAGE"),
            (["resume", "demo"], 65, "demo: the run has ended; run it again with: finetune rerun demo --from STAGE"),
            (["resume", "missing"], 66, "missing: no run with this name in"),
            (["rerun", "missing", "--from", "gate"], 66, "missing: no run with this name in"),
        ],
    )  # fmt: skip
    def test_mistakes_are_reported(
        self, rejected_run: tuple[Workdir, CommandResult], words: list[str], code: int, sentence: str
    ) -> None:
        result = rejected_run[0].finetune(*words)
        assert (result.code, result.out) == (code, "")
        assert sentence in result.err
        assert "Traceback" not in result.err

    def test_a_metric_that_cannot_exist_is_rejected_and_nothing_changes(
        self, rejected_run: tuple[Workdir, CommandResult]
    ) -> None:
        absent = "gate.requirements=[{metric: holdout.words, min: 1}]"
        result = rejected_run[0].finetune("rerun", "demo", "--from", "gate", "--set", absent)
        assert result.code == 65
        assert "spec.gate.requirements: " in result.err
        assert "held-out rows have only the metrics holdout.bits_per_byte" in result.err
        assert status_of(rejected_run[0])["round"] == 1

    def test_a_rejected_rerun_is_reported_and_the_run_keeps_its_results(
        self, rejected_run: tuple[Workdir, CommandResult]
    ) -> None:
        workdir, _ = rejected_run
        before = status_of(workdir)
        result = workdir.finetune("rerun", "demo", "--from", "gate", "--set", "publish={uri: oci://r/x}", "--id", "unsupported")
        assert result.code == 65
        sentence = "Unsupported: spec.publish: this release does not support this field; remove it.\n"
        assert result.err == f"{sentence}demo: nothing was changed; correct the value\n"
        status = status_of(workdir)
        assert (status["phase"], status["round"], status.get("metrics")) == (
            before["phase"],
            before["round"],
            before.get("metrics"),
        )
        assert "publish" not in workdir.finetune("get", "demo", "-o", "json").object["spec"]
        assert "RerunRejected" not in workdir.finetune("describe", "demo").out
        corrections = ("--set", "publish=null", "--set", f"gate.requirements={STRICT_TEXT}")
        corrected = workdir.finetune("rerun", "demo", "--from", "gate", *corrections, "--id", "unsupported")
        assert corrected.code == 3, corrected.out + corrected.err

    def test_a_softer_gate_lets_it_through_and_nothing_is_trained_again(
        self, rejected_run: tuple[Workdir, CommandResult]
    ) -> None:
        workdir, _ = rejected_run
        softer = "gate.requirements=[{metric: holdout.bits_per_byte, max: 100}]"
        result = workdir.finetune("rerun", "demo", "--from", "gate", "--set", softer, "--id", "softer")
        assert result.code == 0, result.out + result.err
        assert "gate passed" in result.out
        status = status_of(workdir)
        assert (status["phase"], status["round"], status["rerunId"]) == ("Succeeded", 3, "softer")
        assert done_stages(workdir).count("training") == 1
        assert workdir.finetune("rerun", "demo", "--from", "gate", "--id", "softer").code == 2
        # The file has the old gate: running it again would undo the rerun, so it is rejected.
        assert workdir.finetune("run", "run.yaml").code == 65


def test_lora_goes_to_a_model_registry_and_its_clone_does_nothing_twice(workdir: Workdir, small: Spec) -> None:
    with ModelRegistryServer(serves=("v1alpha3",), token="let-me-in") as server:
        spec = small(training={"algorithm": "lora"}, registry={"address": server.url, "name": "tiny", "alias": "champion"})
        del spec["training"]["osft"]
        workdir.write(spec)
        (workdir.folder / "registry.env").write_text("REGISTRY_TOKEN=let-me-in\n")
        secret = ("--secret", "registry-token=registry.env")
        result = workdir.finetune("run", "run.yaml", *secret)
        assert result.code == 0, result.out + result.err
        assert "registered  tiny 1.0.0 (ModelRegistry version" in result.out
        result = workdir.finetune("clone", "demo", *secret)
        assert result.code == 0, result.out + result.err
        assert result.out.count("the same as run demo: ") == 6, "all but the registration"
        assert [version["name"] for version in server.versions("tiny")] == ["1.0.0", "1.0.1"]
    adapter = Path(status_of(workdir)["model"]["adapterUri"].removeprefix("file://"))
    assert (adapter / "adapter_config.json").exists()
    assert {stage["name"] for stage in status_of(workdir, "demo-2")["stages"] if stage.get("reused")} == {
        "dataset", "model", "tokenization", "training", "baseline", "evaluation",
    }  # fmt: skip
    for path in (workdir.folder / ".finetune").rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            assert b"let-me-in" not in path.read_bytes(), path


def test_a_version_that_exists_is_reported_before_anything_is_trained(workdir: Workdir, small: Spec) -> None:
    workdir.write(small(evaluation=QUICK))
    assert workdir.finetune("run", "run.yaml").code == 0
    result = workdir.finetune("clone", "demo", "--set", "registry.onExisting=Fail", "--set", "training.epochs=2")
    assert result.code == 65
    assert "registry-check: VersionExists" in result.out
    stages = {stage["name"]: stage["state"] for stage in status_of(workdir, "demo-2")["stages"]}
    assert stages["training"] == "Skipped"


def test_there_are_no_runs_yet(workdir: Workdir) -> None:
    result = workdir.finetune("resume", "demo")
    assert result.code == 66
    assert result.err.endswith(".finetune: contains no runs; give another folder with --home, or start a run.\n")


def test_a_run_is_suspended_by_another_command_and_resumed_later(workdir: Workdir, small: Spec) -> None:
    workdir.write(small(evaluation=QUICK))
    command = workdir.start("run", "run.yaml")
    wait_for(lambda: state_of(workdir, "training") == "Running" and bool(stage_processes(workdir)))
    result = workdir.finetune("suspend", "demo")
    assert result.code == 0
    assert (
        result.err == f"demo: suspension requested; process {command.pid} carries it out; follow it with: finetune get -w demo\n"
    )
    _, err = command.communicate(timeout=120)
    assert command.returncode == 130
    assert "demo: suspended; continue it with: finetune resume demo\n" in err
    assert stage_processes(workdir) == []
    # The file has no spec.suspend: running it again does not end it.
    result = workdir.finetune("run", "run.yaml")
    assert result.code == 130
    assert "demo: suspended" in result.err
    assert "Suspended" in workdir.finetune("get").out
    result = workdir.finetune("resume", "demo")
    assert result.code == 0, result.out + result.err
    assert sorted(done_stages(workdir)) == ["dataset", "model", "registration", "tokenization", "training"]
    stages = {stage["name"]: stage for stage in status_of(workdir)["stages"]}
    assert "failures" not in stages["training"]


def test_suspend_stops_what_outlived_its_command(workdir: Workdir, small: Spec) -> None:
    workdir.write(small(evaluation=QUICK))
    command = workdir.start("run", "run.yaml")
    wait_for(lambda: state_of(workdir, "training") == "Running" and bool(stage_processes(workdir)))
    command.send_signal(signal.SIGKILL)
    command.communicate(timeout=60)
    assert workdir.finetune("rerun", "demo", "--from", "training").code == 65, "it has not ended"
    result = workdir.finetune("suspend", "demo")
    assert result.code == 0, result.err
    assert stage_processes(workdir) == []
    assert workdir.finetune("resume", "demo").code == 0
