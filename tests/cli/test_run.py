"""``finetune run`` on a tiny real model: it really trains, really evaluates, really registers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from cli.workdir import CommandResult, Workdir, done_stages, stage_processes, state_of, status_of, wait_for

Spec = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:mlflow", "ignore::FutureWarning:mlflow", "ignore::pydantic.warnings.PydanticDeprecatedSince20"
)


def mlflow_client(workdir: Workdir) -> Any:
    """The client of MLflow on the store of a folder. Importing it takes seconds, which only the process that uses it needs."""
    import mlflow

    uri = f"sqlite:///{workdir.workspace}/mlflow.db"
    return mlflow.MlflowClient(uri, uri)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, small: Spec) -> tuple[Workdir, CommandResult]:
    """A run that has ended well, and the output of the command."""
    workdir = Workdir(tmp_path_factory.mktemp("desk"))
    workdir.write(small(registry={"name": "tiny", "alias": "newest"}), labels={"finetunerun.io/experiment": "trial"})
    return workdir, workdir.finetune("run", "run.yaml")


@pytest.mark.xdist_group("finished")
class TestARunThatEndsWell:
    def test_it_reports_progress_and_outcome(self, finished: tuple[Workdir, CommandResult]) -> None:
        result = finished[1]
        assert result.code == 0, result.out + result.err
        for words in (
            "dataset: succeeded",
            "model: succeeded",
            "training: succeeded",
            "evaluation: succeeded",
            "registration: succeeded",
        ):
            assert words in result.out
        assert re.search(r"^score +before +after +change", result.out, re.MULTILINE)
        assert re.search(r"^holdout.bits_per_byte .* better *$", result.out, re.MULTILINE)
        assert "registered  tiny 1.0.0 (MLflow version 1)" in result.out
        assert "mlflow ui --backend-store-uri sqlite:///" in result.out

    def test_status_has_the_scores_the_proof_and_the_curve(self, finished: tuple[Workdir, CommandResult]) -> None:
        status = status_of(finished[0])
        assert status["phase"] == "Succeeded"
        metrics = status["metrics"]
        assert metrics["evaluation"]["holdout.bits_per_byte"] < metrics["baseline"]["holdout.bits_per_byte"]
        assert metrics["training"]["osft_leak"] < 1e-3
        assert len(status["history"]) > 3
        states = {stage["name"]: stage["state"] for stage in status["stages"] if stage["state"] != "Skipped"}
        assert states == dict.fromkeys(
            ("workspace", "dataset", "model", "tokenization", "training", "baseline", "evaluation", "registration"), "Succeeded"
        )
        assert len(json.dumps(status)) < 32 * 1024

    def test_the_model_loads_from_the_uri_in_the_registry(self, finished: tuple[Workdir, CommandResult]) -> None:
        workdir, _ = finished
        client = mlflow_client(workdir)
        version = client.get_model_version_by_alias("tiny", "newest")
        assert version.tags["version"] == "1.0.0"
        assert version.source == status_of(workdir)["model"]["uri"]
        program = (
            "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer as T;"
            "m = AutoModelForCausalLM.from_pretrained(sys.argv[1]); t = T.from_pretrained(sys.argv[1]);"
            "chat = t.apply_chat_template([{'role': 'user', 'content': 'How is os.path.join called in Python?'}], tokenize=False,"
            " add_generation_prompt=True); ids = t(chat, return_tensors='pt');"
            "print('loaded', m.generate(**ids, max_new_tokens=4).shape[0])"
        )
        path = version.source.removeprefix("file://")
        done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
        assert "loaded 1" in done.stdout, done.stderr

    def test_mlflow_shows_the_run_with_its_curve(self, finished: tuple[Workdir, CommandResult]) -> None:
        workdir, _ = finished
        client = mlflow_client(workdir)
        experiment = client.get_experiment_by_name("trial")
        assert experiment is not None
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.data.params["training.algorithm"] == "osft"
        assert len(client.get_metric_history(run.info.run_id, "loss")) > 3

    def test_the_same_command_on_it_shows_it_again_and_does_nothing(self, finished: tuple[Workdir, CommandResult]) -> None:
        workdir, _ = finished
        before = (workdir.folder / ".finetune/store.db").stat().st_size, status_of(workdir)
        started = time.monotonic()
        result = workdir.finetune("run", "run.yaml")
        assert result.code == 0
        assert "registered  tiny 1.0.0" in result.out
        assert status_of(workdir) == before[1]
        assert time.monotonic() - started < 30

    def test_get_describe_and_logs(self, finished: tuple[Workdir, CommandResult]) -> None:
        workdir, _ = finished
        table = workdir.finetune("get").out.splitlines()
        assert table[0].split() == [
            "NAME",
            "ALGORITHM",
            "PHASE",
            "PROGRESS",
            "ROWS",
            "LOSS",
            "holdout.bits_per_byte",
            "MODEL",
            "AGE",
        ]
        assert table[1].split()[:3] == ["demo", "osft", "Succeeded"]
        assert "demo" in workdir.finetune("get", "--experiment", "trial").out
        assert f"{workdir.folder}/.finetune: no runs of experiment other;" in workdir.finetune("get", "--experiment", "other").err
        assert workdir.finetune("get", "-o", "yaml").out.startswith("apiVersion: v1\nkind: List\n")
        page = workdir.finetune("describe", "demo").out
        for words in (
            "stages",
            "training loss",
            "scores",
            "adapted to this machine",
            "training.gpusPerWorker",
            "events",
            "RunSucceeded",
        ):
            assert words in page
        assert "step" in workdir.finetune("logs", "demo", "--stage", "training").out
        assert workdir.finetune("logs", "demo").code == 0

    def test_a_missing_run_or_stage_is_reported(self, finished: tuple[Workdir, CommandResult]) -> None:
        workdir, _ = finished
        for command in ("get", "describe", "logs", "delete"):
            result = workdir.finetune(command, "missing")
            assert (result.code, result.out) == (66, "")
            assert result.err.startswith("missing: no run with this name in ")
        result = workdir.finetune("logs", "demo", "--stage", "gate")
        assert result.code == 66
        assert (
            "demo: stage gate has no log; choose one of the stages with a log: dataset, model, tokenization, training,"
            in result.err
        )

    def test_a_frozen_section_cannot_be_edited(self, finished: tuple[Workdir, CommandResult], small: Spec) -> None:
        workdir, _ = finished
        workdir.write(small(training={"epochs": 2}, registry={"name": "tiny", "alias": "newest"}), file="edited.yaml")
        result = workdir.finetune("run", "edited.yaml")
        assert result.code == 65
        assert "spec.training is frozen since the run started" in result.err
        remedy = "demo: nothing was changed; apply the change with: finetune rerun demo --from training --set training.epochs=2\n"
        assert result.err.endswith(remedy), result.err


def test_a_rerun_does_only_what_was_asked(workdir: Workdir, small: Spec) -> None:
    spec = small(evaluation={"enabled": False, "baseline": False})
    workdir.write(spec)
    assert workdir.finetune("run", "run.yaml").code == 0
    first = status_of(workdir)
    workdir.write({**spec, "registry": {"version": "2.0.0"}, "rerun": {"id": "second", "from": "registration"}})
    result = workdir.finetune("run", "run.yaml")
    assert result.code == 0, result.err
    second = status_of(workdir)
    assert second["round"] == 2
    assert second["registry"]["version"] == "2.0.0"
    assert second["model"] == first["model"]
    stages = {stage["name"]: stage for stage in second["stages"]}
    assert (stages["training"]["round"], stages["registration"]["round"]) == (1, 2)


def test_objects_for_machines(workdir: Workdir, small: Spec) -> None:
    workdir.write(small(evaluation={"enabled": False, "baseline": False}))
    result = workdir.finetune("run", "run.yaml", "-o", "json")
    assert result.code == 0, result.err
    assert result.object["status"]["phase"] == "Succeeded"
    assert "training: succeeded" in result.err


def test_two_processes_train_together(workdir: Workdir, small: Spec) -> None:
    training = {"algorithm": "sft", "workers": 2, "osft": None}
    spec = small(training=training, evaluation={"enabled": False, "baseline": False})
    del spec["training"]["osft"]
    workdir.write(spec)
    command = workdir.start("run", "run.yaml")
    wait_for(lambda: state_of(workdir, "dataset") is not None)
    log = workdir.finetune("logs", "demo", "-f", "--stage", "training", "--rank", "all")
    out, err = command.communicate(timeout=240)
    assert command.returncode == 0, out + err
    assert log.code == 0, log.err
    for rank in (0, 1):
        followed = [line for line in log.out.splitlines() if line.startswith(f"[rank {rank}] ")]
        kept = workdir.finetune("logs", "demo", "--stage", "training", "--rank", str(rank)).out.splitlines()
        assert followed == [f"[rank {rank}] {line}" for line in kept]
        assert kept
    result = json.loads((workdir.run_folder() / "training/results/training.json").read_text())
    assert result["outputs"]["processes"] == 2
    assert result["outputs"]["samplesSeen"] >= result["outputs"]["expectedSamples"]


# -- interruptions -----------------------------------------------------------------------------------------------------


def test_ctrl_c_stops_cleanly_and_the_same_command_resumes(workdir: Workdir, small: Spec) -> None:
    workdir.write(small(evaluation={"enabled": False, "baseline": False}))
    command = workdir.start("run", "run.yaml")
    wait_for(lambda: state_of(workdir, "training") == "Running" and bool(stage_processes(workdir)))
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=60)
    assert command.returncode == 130
    assert "demo: stopped; continue it with: finetune resume demo" in err
    assert "Traceback" not in err
    assert stage_processes(workdir) == []
    result = workdir.finetune("run", "run.yaml")
    assert result.code == 0, result.err
    assert sorted(done_stages(workdir)) == ["dataset", "model", "registration", "tokenization", "training"]
    stages = {stage["name"]: stage for stage in status_of(workdir)["stages"]}
    assert stages["training"]["attempt"] == 2
    assert "failures" not in stages["training"]


def test_kill_9_of_the_command_at_any_time_and_the_run_ends_as_if_nothing_had_happened(workdir: Workdir, small: Spec) -> None:
    workdir.write(small())
    for pause in (0.3, 0.6, 0.9, 1.3, 2.0, 4.0, 7.0, 11.0):
        command = workdir.start("run", "run.yaml")
        try:
            command.communicate(timeout=pause)
        except subprocess.TimeoutExpired:
            command.kill()
            command.communicate()
    result = workdir.finetune("run", "run.yaml")
    assert result.code == 0, result.out + result.err
    assert sorted(done_stages(workdir)) == [
        "baseline",
        "dataset",
        "evaluation",
        "model",
        "registration",
        "tokenization",
        "training",
    ]
    assert all(stage.get("attempt", 1) == 1 for stage in status_of(workdir)["stages"])


@pytest.mark.parametrize(
    ("stage", "algorithm"),
    [("dataset", "sft"), ("training", "osft"), ("evaluation", "osft"), ("training", "lora"), ("registration", "lora")],
)
def test_kill_9_of_a_stage_only_costs_an_attempt(workdir: Workdir, small: Spec, stage: str, algorithm: str) -> None:
    spec = small(evaluation={"enabled": stage == "evaluation", "baseline": False})
    if algorithm != "osft":
        spec["training"] = {**spec["training"], "algorithm": algorithm}
        del spec["training"]["osft"]
    workdir.write(spec)
    command = workdir.start("run", "run.yaml")
    killed = []

    def kill() -> bool:
        for record in (workdir.folder / ".finetune/pods").glob("*/started.json"):
            try:
                command_line, started = record.with_name("command.json").read_text(), json.loads(record.read_text())
            except FileNotFoundError:
                continue  # deleted with its pod
            its_stage = '"FINETUNE_CONFIG": ' in command_line and f"/{stage}.json" in command_line
            if its_stage and not record.with_name("exit.json").exists():
                os.killpg(int(started["pid"]), signal.SIGKILL)
                killed.append(record)
                return True
        return command.poll() is not None

    wait_for(kill)
    out, err = command.communicate(timeout=240)
    assert command.returncode == 0, out + err
    assert killed
    stages = {entry["name"]: entry for entry in status_of(workdir)["stages"]}
    assert stages[stage]["attempt"] == 2
    assert stages[stage]["failures"] == {"Lost": 1}
    assert done_stages(workdir).count(stage) == 1


def test_a_second_command_in_the_same_folder_names_the_process_that_uses_it(workdir: Workdir, small: Spec) -> None:
    workdir.write(small(evaluation={"enabled": False, "baseline": False}))
    command = workdir.start("run", "run.yaml")
    try:
        wait_for(lambda: state_of(workdir, "dataset") is not None)
        result = workdir.finetune("run", "run.yaml")
        assert result.code == 75
        assert result.err == (
            f"{workdir.folder}/.finetune: process {command.pid} drives the runs of this folder; wait until it ends, or give another folder with --home.\n"
        )
    finally:
        command.send_signal(signal.SIGINT)
        command.communicate(timeout=60)


def test_delete_stops_running_pods_and_the_command_reports_it(workdir: Workdir, small: Spec) -> None:
    workdir.write(small(evaluation={"enabled": False, "baseline": False}))
    command = workdir.start("run", "run.yaml")
    wait_for(lambda: state_of(workdir, "training") == "Running" and bool(stage_processes(workdir)))
    result = workdir.finetune("delete", "demo")
    assert result.code == 0
    assert "demo: deleted; its files remain in" in result.out
    _, err = command.communicate(timeout=60)
    assert command.returncode == 66
    assert "demo: the run was deleted." in err
    assert stage_processes(workdir) == []
    workdir.write(small(evaluation={"enabled": False, "baseline": False}))
    assert workdir.finetune("run", "run.yaml").code == 0
    assert workdir.finetune("delete", "demo", "--purge").out == "demo: deleted, with its files\n"
    assert len(list((workdir.workspace / "runs").iterdir())) == 1
