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
from pathlib import Path
from typing import Any

import pytest

from cli.workdir import CommandResult, Workdir, done_stages, stage_processes, state_of, status_of, wait_for
from finetune_operator.api.reasons import REASONS

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
            log = record.with_name("command.json")
            if (
                log.exists()
                and '"FINETUNE_CONFIG": ' in log.read_text()
                and f"/{stage}.json" in log.read_text()
                and not record.with_name("exit.json").exists()
            ):
                os.killpg(int(json.loads(record.read_text())["pid"]), signal.SIGKILL)
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


# -- bad input ---------------------------------------------------------------------------------------------------------


def rows(workdir: Workdir, *lines: str) -> str:
    path = workdir.folder / "rows.jsonl"
    path.write_text("".join(line + "\n" for line in lines))
    return str(path)


GOOD_ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'

BAD_DATA: dict[str, tuple[tuple[str, ...], str, str]] = {
    "empty": ((), "DatasetEmpty", "no rows"),
    "no messages": (
        (GOOD_ROW, '{"note": "a", "source": "b"}'),
        "BadRow",
        r"[Rr]ow 2.*messages.*source, note|[Rr]ow 2.*messages.*note, source",
    ),
    "two formats": ((GOOD_ROW, '{"text": "a"}'), "MixedFormats", r"row 1 .* format messages and row 2 .* format text"),
    "bad role": ((GOOD_ROW.replace("user", "human"),), "BadRow", r"[Rr]ow 1.*human"),
    "no answer": (('{"messages": [{"role": "user", "content": "a"}]}',), "BadRow", r"[Rr]ow 1.*assistant"),
    "no JSON": ((GOOD_ROW, "{nonsense"), "DatasetUnreadable", r"line 2|[Rr]ow 2"),
}


def failed(workdir: Workdir, spec: dict[str, Any], reason: str, words: str, code: int = 65) -> dict[str, Any]:
    """The run fails with that reason and one sentence, and leaves nothing behind that looks finished."""
    workdir.write(spec)
    result = workdir.finetune("run", "run.yaml")
    assert result.code == code, result.out + result.err
    assert "Traceback" not in result.out + result.err
    status = status_of(workdir)
    failure: dict[str, Any] = status["failure"]
    assert failure["reason"] == reason
    assert reason in REASONS
    assert re.search(words, failure["message"]), failure["message"]
    assert failure["hint"]
    assert f"{reason}: {failure['message']}"[:60] in " ".join(result.out.split())
    assert not (workdir.workspace / "mlflow.db").exists()
    assert not list((workdir.workspace / "runs").glob("**/final_model"))
    return status


@pytest.mark.parametrize(("lines", "reason", "words"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_reported_by_row(workdir: Workdir, small: Spec, lines: tuple[str, ...], reason: str, words: str) -> None:
    failed(workdir, small(dataset={"uri": rows(workdir, *lines)}), reason, words)
    assert not (workdir.run_folder() / "datasets").exists()


def test_a_file_that_is_missing(workdir: Workdir, small: Spec) -> None:
    failed(
        workdir, small(dataset={"uri": "./nothing.jsonl"}), "DatasetNotFound", re.escape(str(workdir.folder / "nothing.jsonl"))
    )


def test_a_model_without_weights(workdir: Workdir, small: Spec, tiny_model: Path) -> None:
    model = workdir.folder / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (model / name).write_bytes((tiny_model / name).read_bytes())
    failed(workdir, small(model={"uri": "./model"}), "ModelIncomplete", "weights|safetensors")
    assert not (workdir.run_folder() / "base_model").exists()


def test_a_server_that_cannot_be_reached_is_retried(workdir: Workdir, small: Spec) -> None:
    spec = small(dataset={"uri": "http://127.0.0.1:9/rows.jsonl"})
    status = failed(workdir, {**spec, "retry": {"transient": 1}}, "DatasetUnreachable", "127.0.0.1:9", code=75)
    stages = {stage["name"]: stage for stage in status["stages"]}
    assert stages["dataset"]["attempt"] == 2
    assert stages["dataset"]["failures"] == {"Transient": 2}


def test_an_unknown_task(workdir: Workdir, small: Spec) -> None:
    spec = small(evaluation={"tasks": ["arc_eazy"], "baseline": False})
    workdir.write(spec)
    result = workdir.finetune("run", "run.yaml")
    assert result.code == 65, result.out + result.err
    failure = status_of(workdir)["failure"]
    assert (failure["stage"], failure["reason"]) == ("evaluation", "TaskNotFound")
    assert "arc_easy" in failure["message"]
    assert not (workdir.workspace / "mlflow.db").exists()


def test_values_that_this_machine_cannot_honor(workdir: Workdir, small: Spec) -> None:
    for training, words in (({"gpusPerWorker": 64}, "fewer GPUs"), ({"liger": True}, "Liger")):
        workdir.write(small(training=training), name=f"x{len(words)}")
        result = workdir.finetune("run", "run.yaml")
        assert result.code == 65
        assert "NotPossibleHere" in result.out
        assert words in result.out
    workdir.write(small(training={"resources": {"memory": "4000Gi"}}), name="memory")
    result = workdir.finetune("run", "run.yaml")
    assert result.code == 65
    assert "InsufficientResources" in result.out


def test_a_field_that_nothing_acts_on_yet(workdir: Workdir, small: Spec) -> None:
    workdir.write({**small(), "publish": {"uri": "s3://bucket/models"}})
    result = workdir.finetune("run", "run.yaml")
    assert result.code == 65
    assert "spec.publish: this release does not support this field; remove it\n" in result.err
    assert not (workdir.folder / ".finetune").exists()
    workdir.write(small(evaluation={"enabled": False, "baseline": False}))
    assert workdir.finetune("run", "run.yaml").code == 0, "a rejected run starts once it is corrected"


def test_defaults_of_the_folder_are_validated_and_used(workdir: Workdir, small: Spec) -> None:
    quick = small(evaluation={"enabled": False, "baseline": False})
    del quick["training"]["epochs"]
    workdir.write(quick)
    (workdir.folder / "spec.yaml").write_text("training: {epochs: 2, env: [{name: A}]}\n")
    result = workdir.finetune("run", "run.yaml", "--configmap", "finetune-defaults=spec.yaml")
    assert result.code == 65
    failure = status_of(workdir)["failure"]
    assert (failure["reason"], failure["message"]) == (
        "InvalidSpec", "ConfigMap finetune-defaults, training.env[0]: an entry of env needs exactly one of value and valueFrom.",
    )  # fmt: skip
    (workdir.folder / "spec.yaml").write_text("training: {epochs: 2, env: [{name: A, value: b}]}\n")
    workdir.write(quick, name="other")
    result = workdir.finetune("run", "run.yaml", "--configmap", "finetune-defaults=spec.yaml")
    assert result.code == 0, result.out + result.err
    resolved = status_of(workdir, "other")["resolved"]
    assert resolved["spec"]["training"]["epochs"] == 2
    assert resolved["origins"]["namespace"] == ["training.env", "training.epochs"]


def test_secrets_come_from_files_and_are_never_stored(workdir: Workdir, small: Spec) -> None:
    (workdir.folder / "hf.env").write_text("HF_TOKEN=hf_very_secret_value\n")
    spec = small(evaluation={"enabled": False, "baseline": False}, model={"secretRef": {"name": "mine", "key": "HF_TOKEN"}})
    workdir.write(spec)
    result = workdir.finetune("run", "run.yaml", "--secret", "mine=hf.env")
    assert result.code == 0, result.out + result.err
    for path in (workdir.folder / ".finetune").rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            assert b"hf_very_secret_value" not in path.read_bytes(), path


def _file(workdir: Workdir, spec: dict[str, Any], name: str, data: dict[str, str]) -> None:
    run = workdir.write(spec).read_text()
    configmap = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    (workdir.folder / "run.yaml").write_text(f"{run}---\n{json.dumps(configmap)}\n")


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("tasks", {"../../x": "y"}, "data[../../x]: Invalid value: "),
        ("finetune-training-bundle-0123456789abcdef", {"a": "b"}, "is reserved for the operator; choose another name."),
        (
            "finetune-defaults",
            {"spec.yaml": "model: {trustRemoteCode: true}"},
            "is reserved for the operator; choose another name.",
        ),
        ("demo-inputs-1", {"dataset.json": "{}"}, "is reserved for the operator; choose another name."),
        ("../x", {"a": "b"}, "metadata.name: Invalid value: "),
    ],
)
def test_a_file_from_the_internet_writes_nothing_outside_the_home(
    workdir: Workdir, name: str, data: dict[str, str], sentence: str
) -> None:
    _file(workdir, {"dataset": {"uri": "./data.jsonl"}, "model": {"uri": "./model"}}, name, data)
    (workdir.folder / "data.jsonl").write_text("{}\n")
    (workdir.folder / "model").mkdir()
    before = {path for path in workdir.folder.parent.rglob("*") if ".finetune" not in path.parts}
    result = workdir.finetune("run", "run.yaml")
    assert result.code == 65
    assert sentence in result.err
    assert {path for path in workdir.folder.parent.rglob("*") if ".finetune" not in path.parts} == before


def test_code_of_a_file_runs_only_if_it_is_allowed(workdir: Workdir) -> None:
    spec = {
        "dataset": {"uri": "./data.jsonl"}, "model": {"uri": "./model", "trustRemoteCode": True},
        "evaluation": {"tasks": ["mine"], "taskFiles": {"name": "tasks"}},
    }  # fmt: skip
    _file(
        workdir,
        spec,
        "tasks",
        {"mine.yaml": "task: mine\nprocess_docs: !function utils.f\n", "utils.py": "def f(docs): return docs\n"},
    )
    (workdir.folder / "data.jsonl").write_text("{}\n")
    (workdir.folder / "model").mkdir()
    result = workdir.finetune("run", "run.yaml")
    assert result.code == 65
    assert result.err.splitlines() == [
        f"spec.model.trustRemoteCode: runs Python code of the model {workdir.folder / 'model'} on this machine; read it, and add --allow-code",
        "spec.evaluation.taskFiles: mine.yaml of ConfigMap tasks calls Python functions on this machine (utils.f); read it, and add --allow-code",
        "spec.evaluation.taskFiles: utils.py of ConfigMap tasks runs as Python code on this machine; read it, and add --allow-code",
    ]
    assert workdir.finetune("get", "-o", "name").out == ""
    allowed = workdir.finetune("run", "run.yaml", "--allow-code")
    assert "--allow-code" not in allowed.err
    assert status_of(workdir)["phase"] == "Failed"  # the data and the model are empty
    for command in (("clone", "demo"), ("rerun", "demo", "--from", "dataset")):
        again = workdir.finetune(*command)
        assert again.code == 65
        assert "spec.model.trustRemoteCode: runs Python code of the model" in again.err


MISTAKES = {
    "a key that is no name": (["--configmap", "tasks=odd"], 65, "the file name 'a b' is not a key of a ConfigMap; use letters, digits,"),
    "a name of the operator": (["--configmap", "finetune-engine-check-1=odd"], 65, "is reserved for the operator; choose another name."),
    "no such secret file": (["--secret", "mine=nothing.env"], 65, "nothing.env: cannot be read; give a file with KEY=value lines"),
    "no name": (["--secret", "nothing.env"], 2, "--secret nothing.env: not of the form NAME=FILE;"),
    "no such folder": (["--configmap", "tasks=nowhere"], 66, "--configmap tasks=nowhere: nowhere: No such file or directory; give"),
    "no files": (["--configmap", "tasks=empty"], 65, "--configmap tasks=empty: contains no files; add files."),
    "no pair": (["--configmap", "tasks"], 2, "--configmap tasks: not of the form NAME=PATH; give a file or a folder."),
    "a home that is a file": (["--home", "run.yaml"], 65, "choose another folder with --home"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "code", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_in_options(workdir: Workdir, small: Spec, options: list[str], code: int, words: str) -> None:
    workdir.write(small())
    (workdir.folder / "empty").mkdir()
    (workdir.folder / "odd").mkdir()
    (workdir.folder / "odd/a b").write_text("c")
    result = workdir.finetune("run", "run.yaml", *options)
    assert result.code == code
    assert words in result.err
    assert len(result.err.splitlines()) == 1


def test_task_files_that_nobody_brought(workdir: Workdir, small: Spec) -> None:
    workdir.write(small(evaluation={"taskFiles": {"name": "mine"}}))
    result = workdir.finetune("run", "run.yaml")
    assert result.code == 65
    assert (
        result.err == "spec.evaluation.taskFiles.name: ConfigMap mine does not exist; create it with --configmap mine=FOLDER.\n"
    )


def test_the_blocker_of_a_run_is_reported(workdir: Workdir, small: Spec) -> None:
    workdir.write(small(dataset={"secretRef": {"name": "mine", "key": "TOKEN"}}))
    command = workdir.start("run", "run.yaml")
    assert command.stdout
    told = next(line for line in command.stdout if "waiting: " in line)
    assert 'waiting: SecretMissing: secret "mine" has no key TOKEN; give --secret mine=FILE' in told
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=60)
    assert command.returncode == 130


def test_what_a_file_may_hold(workdir: Workdir, small: Spec) -> None:
    workdir.write(small())
    text = (workdir.folder / "run.yaml").read_text()
    (workdir.folder / "two.yaml").write_text(f"{text}---\n{text}")
    assert (
        "two.yaml: contains 2 objects of kind FineTuneRun; give a file with exactly one."
        in workdir.finetune("run", "two.yaml").err
    )
    (workdir.folder / "other.yaml").write_text(f"{text}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n")
    result = workdir.finetune("run", "other.yaml")
    assert (result.code, "Secret s is not allowed in the file of a run;" in result.err) == (65, True)
    assert workdir.finetune("run", "missing.yaml").code == 66
