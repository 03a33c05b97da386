"""The program of stage *registration*, run as its container runs it, with MLflow's store in the workspace."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import time
from contextlib import closing
from typing import Any

import pytest

from finetune_contract.documents import RegistryCheckInputs, RunInfo
from finetune_stages.registration.record import LOSS

from .conftest import BASE, CURVE, DATA, ENGINE, MODEL, stage_inputs, write_results


def versions(client: Any, name: str = "pydoc-helper") -> list[Any]:
    return sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))


def runs(client: Any) -> list[Any]:
    return list(client.search_runs([client.get_experiment_by_name("finetune").experiment_id]))


def test_everything_known_of_the_model_is_in_the_store(programs: Any, results: dict[str, str], look: Any) -> None:
    ended = programs(
        "registration", stage_inputs(results, description="Answers questions."), environment={"MLFLOW_TRACKING_URI": "x"}
    )
    assert ended.code == 0, ended.errors
    client = look()
    (version,), (run,) = versions(client), runs(client)
    assert ended.result.outputs == {
        "kind": "MLflow", "name": "pydoc-helper", "version": "1.0.0", "registryVersion": "1", "readBack": True,
        "modelUri": "file:///data/final_model", "runId": run.info.run_id,
    }  # fmt: skip
    assert (version.source, version.run_id, version.description) == (
        "file:///data/final_model", run.info.run_id, "Answers questions.",
    )  # fmt: skip
    assert version.tags == {
        "version": "1.0.0", "author": "Ada", "format": "pytorch", "format_version": "1.0", "finetunerun.io/run": "demo",
        "finetunerun.io/namespace": "team-a", "finetunerun.io/uid": "0123456789abcdef", "finetunerun.io/round": "1",
        "finetunerun.io/model-digest": MODEL, "finetunerun.io/base-model-digest": BASE, "finetunerun.io/dataset-digest": DATA,
        **ENGINE, **{f"finetunerun.io/{stage}-inputs-digest": str(number) * 64 for number, stage in enumerate(results)},
    }  # fmt: skip
    assert client.get_model_version_by_alias("pydoc-helper", "champion").version == version.version
    assert run.info.run_name == "demo"
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == pytest.approx(50_000, abs=2_000)
    assert run.data.params == {"epochs": "2", "learningRate": "0.0001", "liger": "false", "scheduler": "cosine"}
    assert run.data.metrics == {
        "loss": CURVE[-1].loss, "training.loss": 2.1, "training.seconds": 50.0, "holdout.bits_per_byte": 1.7, "quiz.acc": 0.5,
        "evaluation.seconds": 9.0, "baseline.holdout.bits_per_byte": 2.2, "baseline.seconds": 8.0,
    }  # fmt: skip
    history = client.get_metric_history(run.info.run_id, LOSS)
    assert [(point.step, point.value) for point in history] == [(point.step, point.loss) for point in CURVE]
    times = [point.timestamp for point in history]
    assert times == sorted(times)
    assert times[-1] - times[0] == pytest.approx(50_000, abs=100)
    experiment = client.get_experiment_by_name("finetune")
    assert experiment.artifact_location == str(programs.workspace / "mlruns/1")
    assert programs.path("mlflow.db").stat().st_mode & 0o777 == 0o664
    assert not list(programs.workspace.parent.glob("program-*/mlruns"))


def test_a_second_start_repeats_at_once(programs: Any, results: dict[str, str], look: Any) -> None:
    first = programs("registration", stage_inputs(results))
    again = programs("registration", stage_inputs(results), attempt="1.2")
    assert (again.code, again.result.outputs) == (0, first.result.outputs)
    assert "nothing to do" in again.output
    look().delete_model_version("pydoc-helper", "1")
    third = programs("registration", stage_inputs(results), attempt="1.3")
    assert "nothing to do" not in third.output
    assert [version.version for version in versions(look())] == [2]


def test_registering_again_finds_its_own_entry(programs: Any, results: dict[str, str], look: Any) -> None:
    first = programs("registration", stage_inputs(results))
    programs.path(first.result.file).unlink()
    again = programs("registration", stage_inputs(results), attempt="1.2")
    assert (again.code, again.result.outputs) == (0, first.result.outputs)
    client = look()
    assert (len(versions(client)), len(runs(client))) == (1, 1)
    assert len(client.get_metric_history(first.result.outputs["runId"], LOSS)) == len(CURVE)


def test_a_taken_version_moves_on_and_so_does_the_alias(programs: Any, results: dict[str, str], look: Any) -> None:
    first = programs("registration", stage_inputs(results))
    programs.run = RunInfo("other", "team-a", "fedcba9876543210", experiment="trials")
    second = programs("registration", stage_inputs(write_results(programs.workspace, programs.layout.root)))
    rerun = programs(
        "registration", stage_inputs(write_results(programs.workspace, programs.layout.root, model="f" * 64)), attempt="2.1"
    )
    assert [ended.result.outputs["version"] for ended in (first, second, rerun)] == ["1.0.0", "1.0.1", "1.0.2"]
    assert [ended.result.outputs["registryVersion"] for ended in (first, second, rerun)] == ["1", "2", "3"]
    client = look()
    assert client.get_model_version_by_alias("pydoc-helper", "champion").tags["version"] == "1.0.2"
    assert len(client.search_runs([client.get_experiment_by_name("trials").experiment_id])) == 2


def test_two_runs_may_register_into_an_empty_workspace_at_the_same_time(
    programs: Any, results: dict[str, str], look: Any
) -> None:
    first = programs.start("registration", stage_inputs(results))
    programs.run = RunInfo("other", "team-a", "fedcba9876543210")
    second = programs.start("registration", stage_inputs(write_results(programs.workspace, programs.layout.root)))
    both = [running.wait() for running in (first, second)]
    assert [ended.code for ended in both] == [0, 0], [ended.errors for ended in both]
    assert sorted(ended.result.outputs["version"] for ended in both) == ["1.0.0", "1.0.1"]
    assert len(versions(look())) == 2


def test_evaluation_may_have_been_left_out(programs: Any, look: Any) -> None:
    results = write_results(programs.workspace, programs.layout.root, without=("evaluation",))
    results["baseline"] = "runs/nowhere.json"
    ended = programs("registration", stage_inputs(results, alias=None, parameters={}))
    assert ended.code == 0, ended.errors
    (run,) = runs(look())
    assert set(run.data.metrics) == {"loss", "training.loss", "training.seconds"}


def test_scores_of_an_earlier_model_are_left_out(programs: Any, look: Any) -> None:
    results = write_results(programs.workspace, programs.layout.root, model="9" * 64)
    ended = programs("registration", stage_inputs(results))
    assert ended.code == 0, ended.errors
    assert "result of stage evaluation is for another model" in ended.output
    (run,) = runs(look())
    assert "quiz.acc" not in run.data.metrics
    assert run.data.metrics["baseline.holdout.bits_per_byte"] == 2.2


def test_an_existing_model_is_registered_without_training(programs: Any, look: Any) -> None:
    results = write_results(programs.workspace, programs.layout.root, without=("dataset", "training", "baseline"))
    ended = programs("registration", stage_inputs(results))
    assert ended.code == 0, ended.errors
    (version,) = versions(look())
    assert version.tags["finetunerun.io/model-digest"] == BASE


def test_a_deleted_experiment_is_resumed(programs: Any, results: dict[str, str], look: Any) -> None:
    programs("registration", stage_inputs(results))
    client = look()
    client.delete_experiment(client.get_experiment_by_name("finetune").experiment_id)
    programs.run = RunInfo("other", "team-a", "fedcba9876543210")
    assert programs("registration", stage_inputs(write_results(programs.workspace, programs.layout.root))).code == 0


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"alias": "Latest"}, "RegistryRejected", "registry.alias: 'Latest' is reserved by MLflow"),
        ({"alias": "v3"}, "RegistryRejected", "registry.alias: 'v3' is reserved by MLflow"),
        ({"name": "a/b"}, "RegistryRejected", "a/b"),
        ({"results": {"training": "runs/gone.json"}}, "BadDocument", "result of stage training: it cannot be read"),
        ({"results": {}}, "BadDocument", "it has neither training nor model"),
    ],
    ids=["alias", "numbered alias", "name", "lost result", "no results"],
)
def test_what_cannot_be_registered_is_one_sentence(
    programs: Any, results: dict[str, str], changes: dict[str, Any], reason: str, words: str
) -> None:
    ended = programs("registration", stage_inputs(**{"results": results, **changes}))
    assert (ended.code, ended.reason) == (65, reason), ended.errors
    assert words in ended.result.message
    assert "Traceback" not in ended.output + ended.errors


def test_the_same_version_again_fails_or_is_updated_as_asked(programs: Any, results: dict[str, str], look: Any) -> None:
    """Whether it is there is asked before training too, of sqlite: importing MLflow takes seconds."""

    def check(version: str) -> Any:
        command = [sys.executable, "-X", "importtime", "-m", "finetune_stages.registration"]
        return programs("registry-check", RegistryCheckInputs("MLflow", "pydoc-helper", version), command=command)

    nothing_there = check("1.0.0")
    assert nothing_there.result.outputs == {"kind": "MLflow", "name": "pydoc-helper", "version": "1.0.0", "free": True}
    assert not programs.path("mlflow.db").exists()
    assert programs("registration", stage_inputs(results)).code == 0
    programs.run = RunInfo("other", "team-a", "fedcba9876543210")
    new = write_results(programs.workspace, programs.layout.root, model="f" * 64)
    refused = programs("registration", stage_inputs(new, on_existing="Fail"))
    for ended in (refused, check("1.0.0")):
        assert (ended.code, ended.reason) == (65, "VersionExists"), ended.errors
        assert "pydoc-helper 1.0.0 already exists (registered by FineTuneRun team-a/demo)" in ended.result.message
    free = check("1.0.1")
    assert free.code == 0
    assert "mlflow" not in {line.rpartition("|")[2].strip() for line in free.errors.splitlines()}
    assert len(versions(look())) == len(runs(look())) == 1
    updated = programs("registration", stage_inputs(new, on_existing="Update", model_uri="pvc://claim/new"))
    assert (updated.result.outputs["version"], updated.result.outputs["registryVersion"]) == ("1.0.0", "2")
    named = [version for version in versions(look()) if version.tags.get("version") == "1.0.0"]
    assert [version.source for version in named] == ["pvc://claim/new"]
    programs.path("mlflow.db").write_text("shopping list" * 100)
    assert check("1.0.2").reason == "RegistryRejected"


def test_a_rejected_model_is_marked_and_nothing_points_to_it(programs: Any, results: dict[str, str], look: Any) -> None:
    rejected = programs("registration", stage_inputs(results), environment={"FINETUNE_GATE": "Rejected"})
    assert rejected.code == 0, rejected.errors
    (version,) = versions(look())
    assert version.tags["finetunerun.io/gate"] == "rejected"
    assert version.aliases == []


def test_a_file_that_is_no_store_is_rejected_at_once(programs: Any, results: dict[str, str]) -> None:
    programs.path("mlflow.db").write_text("shopping list: milk, eggs, bread and a database\n" * 30)
    ended = programs("registration", stage_inputs(results))
    assert (ended.code, ended.reason) == (65, "RegistryRejected")
    assert "file is not a database" in ended.result.message
    assert "Traceback" not in ended.errors


def test_a_store_of_another_release_names_the_command(programs: Any, results: dict[str, str]) -> None:
    assert programs("registration", stage_inputs(results)).code == 0
    with closing(sqlite3.connect(programs.path("mlflow.db"))) as store, store:
        store.execute("update alembic_version set version_num = '000000000000'")
    ended = programs("registration", stage_inputs(results, version="2.0.0"))
    assert (ended.code, ended.reason) == (65, "RegistryRejected"), ended.errors
    assert "mlflow db upgrade sqlite:///" in ended.result.message


def test_a_locked_store_is_retried_later(programs: Any, results: dict[str, str]) -> None:
    assert programs("registration", stage_inputs(results)).code == 0
    with closing(sqlite3.connect(programs.path("mlflow.db"), isolation_level=None)) as store:
        store.execute("begin exclusive")
        ended = programs("registration", stage_inputs(results, version="2.0.0"))
    assert (ended.code, ended.reason) == (75, "RegistryUnreachable"), ended.errors
    assert "locked by another program" in ended.result.message


def test_killed_while_the_store_is_made_the_next_attempt_makes_it(programs: Any, results: dict[str, str], look: Any) -> None:
    draw = random.Random(7)
    for number in range(3):
        kill_after(
            programs.start("registration", stage_inputs(results), attempt=f"1.{number + 1}"),
            "creating mlflow.db",
            draw.uniform(0, 1),
        )
    ended = programs("registration", stage_inputs(results), attempt="1.9")
    assert ended.code == 0, ended.errors
    assert (len(versions(look())), len(runs(look()))) == (1, 1)
    assert not list(programs.path(f"{programs.layout.root}/attempts/registration").glob("*/*"))


def test_killed_while_it_writes_nothing_is_there_twice(programs: Any, results: dict[str, str], look: Any) -> None:
    assert programs("registration", stage_inputs(results, name="another")).code == 0
    draw = random.Random(11)
    for number in range(6):
        running = programs.start("registration", stage_inputs(results), attempt=f"1.{number + 1}")
        kill_after(running, "writing pydoc-helper", draw.uniform(0, 0.15))
    ended = programs("registration", stage_inputs(results), attempt="1.9")
    assert ended.code == 0, ended.errors
    (version,) = versions(look())
    assert version.tags["version"] == "1.0.0"
    assert len(look().get_metric_history(ended.result.outputs["runId"], LOSS)) == len(CURVE)


def kill_after(running: Any, words: str, seconds: float) -> None:
    """Kill the program a number of seconds after it has printed ``words``."""
    for line in running.process.stdout:
        if words in line:
            break
    time.sleep(seconds)
    os.kill(running.process.pid, signal.SIGKILL)
    running.end()
