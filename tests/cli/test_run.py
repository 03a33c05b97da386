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

import mlflow
import pytest

from cli.desk import Desk, Said, done_stages, stage_processes, state_of, status_of, wait_for
from finetune_operator.api.reasons import REASONS

Spec = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning:mlflow", "ignore::FutureWarning:mlflow", "ignore::pydantic.warnings.PydanticDeprecatedSince20"
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, small: Spec) -> tuple[Desk, Said]:
    """A run that has ended well, and what the command said."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.write(small(registry={"name": "tiny", "alias": "newest"}), labels={"finetunerun.io/experiment": "trial"})
    return desk, desk.finetune("run", "run.yaml")


@pytest.mark.xdist_group("finished")
class TestARunThatEndsWell:
    def test_it_says_what_happened_and_what_came_out(self, finished: tuple[Desk, Said]) -> None:
        said = finished[1]
        assert said.code == 0, said.out + said.err
        for words in (
            "dataset: succeeded",
            "model: succeeded",
            "training: succeeded",
            "evaluation: succeeded",
            "registration: succeeded",
        ):
            assert words in said.out
        assert re.search(r"^score +before +after +change", said.out, re.MULTILINE)
        assert re.search(r"^holdout.bits_per_byte .* better *$", said.out, re.MULTILINE)
        assert "registered  tiny 1.0.0 (MLflow version 1)" in said.out
        assert "mlflow ui --backend-store-uri sqlite:///" in said.out

    def test_status_has_the_scores_the_proof_and_the_curve(self, finished: tuple[Desk, Said]) -> None:
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

    def test_the_model_loads_from_the_uri_in_the_registry(self, finished: tuple[Desk, Said]) -> None:
        desk, _ = finished
        client = mlflow.MlflowClient(f"sqlite:///{desk.workspace}/mlflow.db", f"sqlite:///{desk.workspace}/mlflow.db")
        version = client.get_model_version_by_alias("tiny", "newest")
        assert version.tags["version"] == "1.0.0"
        assert version.source == status_of(desk)["model"]["uri"]
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

    def test_mlflow_shows_the_run_with_its_curve(self, finished: tuple[Desk, Said]) -> None:
        desk, _ = finished
        uri = f"sqlite:///{desk.workspace}/mlflow.db"
        client = mlflow.MlflowClient(uri, uri)
        experiment = client.get_experiment_by_name("trial")
        assert experiment is not None
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.data.params["training.algorithm"] == "osft"
        assert len(client.get_metric_history(run.info.run_id, "loss")) > 3

    def test_the_same_command_on_it_shows_it_again_and_does_nothing(self, finished: tuple[Desk, Said]) -> None:
        desk, _ = finished
        before = (desk.folder / ".finetune/store.db").stat().st_size, status_of(desk)
        started = time.monotonic()
        said = desk.finetune("run", "run.yaml")
        assert said.code == 0
        assert "registered  tiny 1.0.0" in said.out
        assert status_of(desk) == before[1]
        assert time.monotonic() - started < 30

    def test_get_describe_and_logs(self, finished: tuple[Desk, Said]) -> None:
        desk, _ = finished
        table = desk.finetune("get").out.splitlines()
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
        assert "demo" in desk.finetune("get", "--experiment", "trial").out
        assert f"No runs of experiment other in {desk.folder}/.finetune." in desk.finetune("get", "--experiment", "other").err
        assert desk.finetune("get", "-o", "yaml").out.startswith("apiVersion: v1\nkind: List\n")
        page = desk.finetune("describe", "demo").out
        for words in (
            "stages",
            "training loss",
            "scores",
            "adapted to this place",
            "training.gpusPerWorker",
            "events",
            "RunSucceeded",
        ):
            assert words in page
        assert "step" in desk.finetune("logs", "demo", "--stage", "training").out
        assert desk.finetune("logs", "demo").code == 0

    def test_what_is_not_there_is_told(self, finished: tuple[Desk, Said]) -> None:
        desk, _ = finished
        for command in ("get", "describe", "logs", "delete"):
            said = desk.finetune(command, "nobody")
            assert (said.code, said.out) == (66, "")
            assert said.err.startswith("nobody: there is no run of that name in ")
        said = desk.finetune("logs", "demo", "--stage", "gate")
        assert said.code == 66
        assert "stages with a log: dataset, model, tokenization, training, baseline, evaluation, registration" in said.err

    def test_a_frozen_section_cannot_be_edited(self, finished: tuple[Desk, Said], small: Spec) -> None:
        desk, _ = finished
        desk.write(small(training={"epochs": 2}, registry={"name": "tiny", "alias": "newest"}), file="edited.yaml")
        said = desk.finetune("run", "edited.yaml")
        assert said.code == 65
        assert "spec.training is frozen since the run started" in said.err
        assert "finetune delete demo" in said.err


def test_a_rerun_does_only_what_was_asked(desk: Desk, small: Spec) -> None:
    spec = small(evaluation={"enabled": False, "baseline": False})
    desk.write(spec)
    assert desk.finetune("run", "run.yaml").code == 0
    first = status_of(desk)
    desk.write({**spec, "registry": {"version": "2.0.0"}, "rerun": {"id": "second", "from": "registration"}})
    said = desk.finetune("run", "run.yaml")
    assert said.code == 0, said.err
    second = status_of(desk)
    assert second["round"] == 2
    assert second["registry"]["version"] == "2.0.0"
    assert second["model"] == first["model"]
    stages = {stage["name"]: stage for stage in second["stages"]}
    assert (stages["training"]["round"], stages["registration"]["round"]) == (1, 2)


def test_objects_for_machines(desk: Desk, small: Spec) -> None:
    desk.write(small(evaluation={"enabled": False, "baseline": False}))
    said = desk.finetune("run", "run.yaml", "-o", "json")
    assert said.code == 0, said.err
    assert said.object["status"]["phase"] == "Succeeded"
    assert "training: succeeded" in said.err


def test_two_processes_train_together(desk: Desk, small: Spec) -> None:
    training = {"algorithm": "sft", "workers": 2, "osft": None}
    spec = small(training=training, evaluation={"enabled": False, "baseline": False})
    del spec["training"]["osft"]
    desk.write(spec)
    command = desk.start("run", "run.yaml")
    wait_for(lambda: state_of(desk, "dataset") is not None)
    log = desk.finetune("logs", "demo", "-f", "--stage", "training", "--rank", "all")
    out, err = command.communicate(timeout=240)
    assert command.returncode == 0, out + err
    assert log.code == 0, log.err
    for rank in (0, 1):
        followed = [line for line in log.out.splitlines() if line.startswith(f"[rank {rank}] ")]
        kept = desk.finetune("logs", "demo", "--stage", "training", "--rank", str(rank)).out.splitlines()
        assert followed == [f"[rank {rank}] {line}" for line in kept]
        assert kept
    result = json.loads((desk.run_folder() / "results/training.json").read_text())
    assert result["outputs"]["processes"] == 2
    assert result["outputs"]["samplesSeen"] >= result["outputs"]["expectedSamples"]


# -- interruptions -----------------------------------------------------------------------------------------------------


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(desk: Desk, small: Spec) -> None:
    desk.write(small(evaluation={"enabled": False, "baseline": False}))
    command = desk.start("run", "run.yaml")
    wait_for(lambda: state_of(desk, "training") == "Running" and bool(stage_processes(desk)))
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=60)
    assert command.returncode == 130
    assert "the same command goes on where it stopped" in err
    assert "Traceback" not in err
    assert stage_processes(desk) == []
    said = desk.finetune("run", "run.yaml")
    assert said.code == 0, said.err
    assert sorted(done_stages(desk)) == ["dataset", "model", "registration", "tokenization", "training"]
    stages = {stage["name"]: stage for stage in status_of(desk)["stages"]}
    assert stages["training"]["attempt"] == 2
    assert "failures" not in stages["training"]


def test_kill_9_of_the_command_at_any_time_and_the_run_ends_as_if_nothing_had_happened(desk: Desk, small: Spec) -> None:
    desk.write(small())
    for pause in (0.3, 0.6, 0.9, 1.3, 2.0, 4.0, 7.0, 11.0):
        command = desk.start("run", "run.yaml")
        try:
            command.communicate(timeout=pause)
        except subprocess.TimeoutExpired:
            command.kill()
            command.communicate()
    said = desk.finetune("run", "run.yaml")
    assert said.code == 0, said.out + said.err
    assert sorted(done_stages(desk)) == ["baseline", "dataset", "evaluation", "model", "registration", "tokenization", "training"]
    assert all(stage.get("attempt", 1) == 1 for stage in status_of(desk)["stages"])


@pytest.mark.parametrize(
    ("stage", "algorithm"),
    [
        ("dataset", "osft"), ("training", "osft"), ("evaluation", "osft"), ("registration", "osft"), ("training", "sft"),
        ("training", "lora"), ("registration", "lora"),
    ],
)  # fmt: skip
def test_kill_9_of_a_stage_only_costs_an_attempt(desk: Desk, small: Spec, stage: str, algorithm: str) -> None:
    spec = small(evaluation={"enabled": stage == "evaluation", "baseline": False})
    if algorithm != "osft":
        spec["training"] = {**spec["training"], "algorithm": algorithm}
        del spec["training"]["osft"]
    desk.write(spec)
    command = desk.start("run", "run.yaml")
    killed = []

    def kill() -> bool:
        for record in (desk.folder / ".finetune/pods").glob("*/started.json"):
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
    stages = {entry["name"]: entry for entry in status_of(desk)["stages"]}
    assert stages[stage]["attempt"] == 2
    assert stages[stage]["failures"] == {"Lost": 1}
    assert done_stages(desk).count(stage) == 1


def test_a_second_run_in_the_same_folder_is_told_who_is_there(desk: Desk, small: Spec) -> None:
    desk.write(small(evaluation={"enabled": False, "baseline": False}))
    command = desk.start("run", "run.yaml")
    try:
        wait_for(lambda: state_of(desk, "dataset") is not None)
        said = desk.finetune("run", "run.yaml")
        assert said.code == 75
        assert said.err == (
            f"{desk.folder}/.finetune: another finetune run (process {command.pid}) is at work there; wait for it, or use --home.\n"
        )
    finally:
        command.send_signal(signal.SIGINT)
        command.communicate(timeout=60)


def test_delete_stops_what_runs_and_the_command_says_so(desk: Desk, small: Spec) -> None:
    desk.write(small(evaluation={"enabled": False, "baseline": False}))
    command = desk.start("run", "run.yaml")
    wait_for(lambda: state_of(desk, "training") == "Running" and bool(stage_processes(desk)))
    said = desk.finetune("delete", "demo")
    assert said.code == 0
    assert "demo: deleted; its files stay in" in said.out
    _, err = command.communicate(timeout=60)
    assert command.returncode == 66
    assert "demo: was deleted." in err
    assert stage_processes(desk) == []
    desk.write(small(evaluation={"enabled": False, "baseline": False}))
    assert desk.finetune("run", "run.yaml").code == 0
    assert desk.finetune("delete", "demo", "--purge").out == "demo: deleted, with its files\n"
    assert len(list((desk.workspace / "runs").iterdir())) == 1


# -- bad input ---------------------------------------------------------------------------------------------------------


def rows(desk: Desk, *lines: str) -> str:
    path = desk.folder / "rows.jsonl"
    path.write_text("".join(line + "\n" for line in lines))
    return str(path)


GOOD_ROW = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'

BAD_DATA: dict[str, tuple[tuple[str, ...], str, str]] = {
    "empty": ((), "DatasetEmpty", "no rows"),
    "no messages": (
        (GOOD_ROW, '{"text": "a", "source": "b"}'),
        "BadRow",
        r"[Rr]ow 2.*messages.*source, text|[Rr]ow 2.*messages.*text, source",
    ),
    "bad role": ((GOOD_ROW.replace("user", "human"),), "BadRow", r"[Rr]ow 1.*human"),
    "no answer": (('{"messages": [{"role": "user", "content": "a"}]}',), "BadRow", r"[Rr]ow 1.*assistant"),
    "no JSON": ((GOOD_ROW, "{nonsense"), "DatasetUnreadable", r"line 2|[Rr]ow 2"),
}


def failed(desk: Desk, spec: dict[str, Any], reason: str, words: str, code: int = 65) -> dict[str, Any]:
    """The run fails with that reason and one sentence, and leaves nothing behind that looks finished."""
    desk.write(spec)
    said = desk.finetune("run", "run.yaml")
    assert said.code == code, said.out + said.err
    assert "Traceback" not in said.out + said.err
    status = status_of(desk)
    failure: dict[str, Any] = status["failure"]
    assert failure["reason"] == reason
    assert reason in REASONS
    assert re.search(words, failure["message"]), failure["message"]
    assert failure["hint"]
    assert f"{reason} {failure['message']}"[:60] in " ".join(said.out.split())
    assert not (desk.workspace / "mlflow.db").exists()
    for folder in (desk.workspace / "runs").glob("*/*"):
        assert folder.name != "final_model"
    return status


@pytest.mark.parametrize(("lines", "reason", "words"), BAD_DATA.values(), ids=BAD_DATA)
def test_bad_data_is_told_by_row(desk: Desk, small: Spec, lines: tuple[str, ...], reason: str, words: str) -> None:
    failed(desk, small(dataset={"uri": rows(desk, *lines)}), reason, words)
    assert not (desk.run_folder() / "datasets").exists()


def test_a_file_that_is_missing(desk: Desk, small: Spec) -> None:
    failed(desk, small(dataset={"uri": "./nothing.jsonl"}), "DatasetNotFound", re.escape(str(desk.folder / "nothing.jsonl")))


def test_a_model_without_weights(desk: Desk, small: Spec, tiny_model: Path) -> None:
    model = desk.folder / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (model / name).write_bytes((tiny_model / name).read_bytes())
    failed(desk, small(model={"uri": "./model"}), "ModelIncomplete", "weights|safetensors")
    assert not (desk.run_folder() / "base_model").exists()


def test_a_server_that_cannot_be_reached_is_tried_again(desk: Desk, small: Spec) -> None:
    spec = small(dataset={"uri": "http://127.0.0.1:9/rows.jsonl"})
    status = failed(desk, {**spec, "retry": {"transient": 1}}, "DatasetUnreachable", "127.0.0.1:9", code=75)
    stages = {stage["name"]: stage for stage in status["stages"]}
    assert stages["dataset"]["attempt"] == 2
    assert stages["dataset"]["failures"] == {"Transient": 2}


def test_an_unknown_task(desk: Desk, small: Spec) -> None:
    spec = small(evaluation={"tasks": ["arc_eazy"], "baseline": False})
    desk.write(spec)
    said = desk.finetune("run", "run.yaml")
    assert said.code == 65, said.out + said.err
    failure = status_of(desk)["failure"]
    assert (failure["stage"], failure["reason"]) == ("evaluation", "TaskNotFound")
    assert "arc_easy" in failure["message"]
    assert not (desk.workspace / "mlflow.db").exists()


def test_values_that_this_machine_cannot_honour(desk: Desk, small: Spec) -> None:
    for training, words in (({"gpusPerWorker": 64}, "fewer GPUs"), ({"liger": True}, "Liger")):
        desk.write(small(training=training), name=f"x{len(words)}")
        said = desk.finetune("run", "run.yaml")
        assert said.code == 65
        assert "NotPossibleHere" in said.out
        assert words in said.out
    desk.write(small(training={"resources": {"memory": "4000Gi"}}), name="memory")
    said = desk.finetune("run", "run.yaml")
    assert said.code == 65
    assert "InsufficientResources" in said.out


def test_a_field_that_nothing_acts_on_yet(desk: Desk, small: Spec) -> None:
    desk.write({**small(), "publish": {"uri": "s3://bucket/models"}})
    said = desk.finetune("run", "run.yaml")
    assert said.code == 65
    assert "Unsupported spec.publish: this release does not support this field" in " ".join(said.out.split())
    desk.write(small(evaluation={"enabled": False, "baseline": False}))
    assert desk.finetune("run", "run.yaml").code == 0, "a refused run starts once it was mended"


def test_secrets_come_from_files_and_are_never_stored(desk: Desk, small: Spec) -> None:
    (desk.folder / "hf.env").write_text("HF_TOKEN=hf_very_secret_value\n")
    spec = small(evaluation={"enabled": False, "baseline": False}, model={"secretRef": {"name": "mine", "key": "HF_TOKEN"}})
    desk.write(spec)
    said = desk.finetune("run", "run.yaml", "--secret", "mine=hf.env")
    assert said.code == 0, said.out + said.err
    for path in (desk.folder / ".finetune").rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            assert b"hf_very_secret_value" not in path.read_bytes(), path


MISTAKES = {
    "no such secret file": (["--secret", "mine=nothing.env"], 65, "nothing.env: cannot be read; --secret takes NAME=FILE"),
    "no name": (["--secret", "nothing.env"], 2, "--secret nothing.env: expected NAME=FILE."),
    "no such folder": (["--configmap", "tasks=nowhere"], 66, "--configmap tasks=nowhere: nowhere: No such file or directory."),
    "no files": (["--configmap", "tasks=empty"], 65, "--configmap tasks=empty: there is no file in it."),
    "no pair": (["--configmap", "tasks"], 2, "--configmap tasks: expected NAME=FOLDER or NAME=FILE."),
    "a home that is a file": (["--home", "run.yaml"], 65, "choose another folder with --home"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "code", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_in_options(desk: Desk, small: Spec, options: list[str], code: int, words: str) -> None:
    desk.write(small())
    (desk.folder / "empty").mkdir()
    said = desk.finetune("run", "run.yaml", *options)
    assert said.code == code
    assert words in said.err
    assert len(said.err.splitlines()) == 1


def test_task_files_that_nobody_brought(desk: Desk, small: Spec) -> None:
    desk.write(small(evaluation={"taskFiles": {"name": "mine"}}))
    said = desk.finetune("run", "run.yaml")
    assert said.code == 65
    assert said.err == "spec.evaluation.taskFiles: there is no ConfigMap mine here; bring it with --configmap mine=FOLDER.\n"


def test_what_a_run_waits_for_is_told(desk: Desk, small: Spec) -> None:
    desk.write(small(dataset={"secretRef": {"name": "mine", "key": "TOKEN"}}))
    command = desk.start("run", "run.yaml")
    assert command.stdout
    told = next(line for line in command.stdout if "waiting: " in line)
    assert 'waiting: SecretMissing: secret "mine" has no key TOKEN: set TOKEN or use --secret mine=FILE' in told
    command.send_signal(signal.SIGINT)
    command.communicate(timeout=60)
    assert command.returncode == 130


def test_what_a_file_may_hold(desk: Desk, small: Spec) -> None:
    desk.write(small())
    text = (desk.folder / "run.yaml").read_text()
    (desk.folder / "two.yaml").write_text(f"{text}---\n{text}")
    assert "holds 2 FineTuneRuns; finetune run takes a file with one" in desk.finetune("run", "two.yaml").err
    (desk.folder / "other.yaml").write_text(f"{text}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n")
    said = desk.finetune("run", "other.yaml")
    assert (said.code, "Secret s has no place here" in said.err) == (65, True)
    assert desk.finetune("run", "missing.yaml").code == 66
