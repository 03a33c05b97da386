"""The program of stage *registration*, run as its container runs it, and its writing into MLflow, cut short everywhere."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.documents import RunInfo, StageDocument
from finetune_contract.workspace import Attempt
from finetune_stages.kit import Context, StageError
from finetune_stages.registration import mlflow_store
from finetune_stages.registration.record import LOSS, Record, read_record

from .conftest import BASE, CURVE, DATA, MODEL, wish, write_results


@pytest.fixture
def programs(run_stage_program: Any) -> Any:
    return run_stage_program


@pytest.fixture
def results(programs: Any) -> dict[str, str]:
    return write_results(programs.workspace, programs.layout.root)


def versions(client: Any, name: str = "pydoc-helper") -> list[Any]:
    return sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))


def runs(client: Any) -> list[Any]:
    return list(client.search_runs([client.get_experiment_by_name("finetune").experiment_id]))


def test_everything_known_of_the_model_is_in_the_store(programs: Any, results: dict[str, str], look: Any) -> None:
    ended = programs("registration", wish(results, description="Answers questions."), environment={"MLFLOW_TRACKING_URI": "x"})
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
        **{f"finetunerun.io/{stage}-inputs-digest": str(number) * 64 for number, stage in enumerate(results)},
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
    first = programs("registration", wish(results))
    again = programs("registration", wish(results), attempt="1.2")
    assert (again.code, again.result.outputs) == (0, first.result.outputs)
    assert "nothing to do" in again.output
    look().delete_model_version("pydoc-helper", "1")
    third = programs("registration", wish(results), attempt="1.3")
    assert "nothing to do" not in third.output
    assert [version.version for version in versions(look())] == [2]


def test_registering_again_finds_its_own_entry(programs: Any, results: dict[str, str], look: Any) -> None:
    first = programs("registration", wish(results))
    programs.path(first.result.file).unlink()
    again = programs("registration", wish(results), attempt="1.2")
    assert (again.code, again.result.outputs) == (0, first.result.outputs)
    client = look()
    assert (len(versions(client)), len(runs(client))) == (1, 1)
    assert len(client.get_metric_history(first.result.outputs["runId"], LOSS)) == len(CURVE)


def test_a_taken_version_moves_on_and_so_does_the_alias(programs: Any, results: dict[str, str], look: Any) -> None:
    first = programs("registration", wish(results))
    programs.run = RunInfo("other", "team-a", "fedcba9876543210", experiment="trials")
    second = programs("registration", wish(write_results(programs.workspace, programs.layout.root)))
    rerun = programs("registration", wish(write_results(programs.workspace, programs.layout.root, model="f" * 64)), attempt="2.1")
    assert [ended.result.outputs["version"] for ended in (first, second, rerun)] == ["1.0.0", "1.0.1", "1.0.2"]
    assert [ended.result.outputs["registryVersion"] for ended in (first, second, rerun)] == ["1", "2", "3"]
    client = look()
    assert client.get_model_version_by_alias("pydoc-helper", "champion").tags["version"] == "1.0.2"
    assert len(client.search_runs([client.get_experiment_by_name("trials").experiment_id])) == 2


def test_two_runs_may_register_into_an_empty_workspace_at_the_same_time(
    programs: Any, results: dict[str, str], look: Any
) -> None:
    first = programs.start("registration", wish(results))
    programs.run = RunInfo("other", "team-a", "fedcba9876543210")
    second = programs.start("registration", wish(write_results(programs.workspace, programs.layout.root)))
    both = [running.wait() for running in (first, second)]
    assert [ended.code for ended in both] == [0, 0], [ended.errors for ended in both]
    assert sorted(ended.result.outputs["version"] for ended in both) == ["1.0.0", "1.0.1"]
    assert len(versions(look())) == 2


def test_evaluation_may_have_been_left_out(programs: Any, look: Any) -> None:
    results = write_results(programs.workspace, programs.layout.root, without=("evaluation",))
    results["baseline"] = "runs/nowhere.json"
    ended = programs("registration", wish(results, alias=None, parameters={}))
    assert ended.code == 0, ended.errors
    (run,) = runs(look())
    assert set(run.data.metrics) == {"loss", "training.loss", "training.seconds"}


def test_scores_of_an_earlier_model_are_left_out(programs: Any, look: Any) -> None:
    results = write_results(programs.workspace, programs.layout.root, model="9" * 64)
    ended = programs("registration", wish(results))
    assert ended.code == 0, ended.errors
    assert "result of stage evaluation is of another model" in ended.output
    (run,) = runs(look())
    assert "quiz.acc" not in run.data.metrics
    assert run.data.metrics["baseline.holdout.bits_per_byte"] == 2.2


def test_an_existing_model_is_registered_without_training(programs: Any, look: Any) -> None:
    results = write_results(programs.workspace, programs.layout.root, without=("dataset", "training", "baseline"))
    ended = programs("registration", wish(results))
    assert ended.code == 0, ended.errors
    (version,) = versions(look())
    assert version.tags["finetunerun.io/model-digest"] == BASE


def test_a_deleted_experiment_is_taken_up_again(programs: Any, results: dict[str, str], look: Any) -> None:
    programs("registration", wish(results))
    client = look()
    client.delete_experiment(client.get_experiment_by_name("finetune").experiment_id)
    programs.run = RunInfo("other", "team-a", "fedcba9876543210")
    assert programs("registration", wish(write_results(programs.workspace, programs.layout.root))).code == 0


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"alias": "Latest"}, "RegistryRefused", "registry.alias: 'Latest' is reserved by MLflow"),
        ({"alias": "v3"}, "RegistryRefused", "registry.alias: 'v3' is reserved by MLflow"),
        ({"name": "a/b"}, "RegistryRefused", "a/b"),
        ({"results": {"training": "runs/gone.json"}}, "BadDocument", "result of stage training cannot be read"),
        ({"results": {}}, "BadDocument", "names neither training nor model"),
    ],
    ids=["alias", "numbered alias", "name", "lost result", "no results"],
)
def test_what_cannot_be_registered_is_one_sentence(
    programs: Any, results: dict[str, str], changes: dict[str, Any], reason: str, words: str
) -> None:
    ended = programs("registration", wish(**{"results": results, **changes}))
    assert (ended.code, ended.reason) == (65, reason), ended.errors
    assert words in ended.result.message
    assert "Traceback" not in ended.output + ended.errors


def test_a_file_that_is_no_store_is_refused_at_once(programs: Any, results: dict[str, str]) -> None:
    programs.path("mlflow.db").write_text("shopping list: milk, eggs, bread and a database\n" * 30)
    ended = programs("registration", wish(results))
    assert (ended.code, ended.reason) == (65, "RegistryRefused")
    assert "file is not a database" in ended.result.message
    assert "Traceback" not in ended.errors


def test_a_store_of_another_release_names_the_command(programs: Any, results: dict[str, str]) -> None:
    assert programs("registration", wish(results)).code == 0
    with closing(sqlite3.connect(programs.path("mlflow.db"))) as store, store:
        store.execute("update alembic_version set version_num = '000000000000'")
    ended = programs("registration", wish(results, version="2.0.0"))
    assert (ended.code, ended.reason) == (65, "RegistryRefused"), ended.errors
    assert "mlflow db upgrade sqlite:///" in ended.result.message


def test_a_locked_store_is_tried_again_later(programs: Any, results: dict[str, str]) -> None:
    assert programs("registration", wish(results)).code == 0
    with closing(sqlite3.connect(programs.path("mlflow.db"), isolation_level=None)) as store:
        store.execute("begin exclusive")
        ended = programs("registration", wish(results, version="2.0.0"))
    assert (ended.code, ended.reason) == (75, "RegistryUnreachable"), ended.errors
    assert "locked by another program" in ended.result.message


def test_killed_while_the_store_is_made_the_next_attempt_makes_it(programs: Any, results: dict[str, str], look: Any) -> None:
    draw = random.Random(7)
    for number in range(3):
        kill_after(
            programs.start("registration", wish(results), attempt=f"1.{number + 1}"), "creating mlflow.db", draw.uniform(0, 1)
        )
    ended = programs("registration", wish(results), attempt="1.9")
    assert ended.code == 0, ended.errors
    assert (len(versions(look())), len(runs(look()))) == (1, 1)
    assert not list(programs.path(f"{programs.layout.root}/attempts/registration").glob("*/*"))


def test_killed_while_it_writes_nothing_is_there_twice(programs: Any, results: dict[str, str], look: Any) -> None:
    assert programs("registration", wish(results, name="another")).code == 0
    draw = random.Random(11)
    for number in range(6):
        running = programs.start("registration", wish(results), attempt=f"1.{number + 1}")
        kill_after(running, "writing pydoc-helper", draw.uniform(0, 0.15))
    ended = programs("registration", wish(results), attempt="1.9")
    assert ended.code == 0, ended.errors
    (version,) = versions(look())
    assert version.tags["version"] == "1.0.0"
    assert len(look().get_metric_history(ended.result.outputs["runId"], LOSS)) == len(CURVE)


def kill_after(running: Any, words: str, seconds: float) -> None:
    """Wait until the program says ``words``, and so long after that kill it."""
    for line in running.process.stdout:
        if words in line:
            break
    time.sleep(seconds)
    os.kill(running.process.pid, signal.SIGKILL)
    running.end()


class Cut(BaseException):
    """The program was cut short here."""


class CutShort:
    """A client that works until a number of calls was made, and is cut short right before or right after the next one."""

    def __init__(self, client: Any, calls: int, before: bool) -> None:
        self._client, self._left, self._before = client, calls, before

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            if self._left < 0 and self._before:
                raise Cut
            answer = getattr(self._client, name)(*args, **kwargs)
            if self._left < 0:
                raise Cut
            return answer

        return call


@pytest.fixture
def record(programs: Any, results: dict[str, str]) -> Record:
    document = StageDocument(1, "registration", programs.run, {})
    context = Context(document, programs.workspace, Attempt(1, 1), "0" * 64)
    return read_record(context, wish(results))


@pytest.fixture
def client(tmp_path: Path, mlflow_client: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/other.db"
    return mlflow_client(tracking_uri=uri, registry_uri=uri)


def test_cut_short_at_any_call_the_next_attempt_completes_it(record: Record, client: Any) -> None:
    finished = cut = 0
    while not finished:
        for before in (True, False):
            own = replace(
                record, name=f"model-{cut}-{before}", identity={**record.identity, "finetunerun.io/uid": f"{cut}-{before}"}
            )
            try:
                mlflow_store._write(CutShort(client, cut, before), own)
                finished += 1
            except Cut:
                pass
            entry = mlflow_store._write(client, own)
            assert entry.version == "1.0.0"
            (version,) = versions(client, own.name)
            assert version.run_id == entry.run_id
            assert len(client.get_metric_history(entry.run_id, LOSS)) == len(CURVE)
            same = f"tags.`finetunerun.io/uid` = '{cut}-{before}'"
            assert len(client.search_runs([client.get_experiment_by_name("finetune").experiment_id], same)) == 1
        cut += 1
    assert cut > 10


def test_what_comes_back_otherwise_fails(record: Record, client: Any) -> None:
    class Forgetful(CutShort):
        def __getattr__(self, name: str) -> Any:
            if name == "get_model_version":
                return lambda *args: self._client.get_model_version_by_alias(record.name, "older")
            return super().__getattr__(name)

    older = replace(
        record, alias="older", model_uri="file:///elsewhere", identity={**record.identity, "finetunerun.io/uid": "older"}
    )
    mlflow_store._write(client, older)
    with pytest.raises(StageError, match="the store gave back another source, run, tags") as raised:
        mlflow_store._write(Forgetful(client, 1000, before=True), record)
    assert raised.value.reason.name == "ReadBackFailed"
