"""``finetune run`` on wrong files, data, values and options: nothing starts that cannot end well, and one sentence reports why."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.workdir import Workdir, status_of
from finetune_operator.api.reasons import REASONS
from web_server import FileServer

Spec = Callable[..., dict[str, Any]]


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
    for training, words in (({"gpusPerWorker": 16}, "fewer GPUs"), ({"liger": True}, "Liger")):
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
    (workdir.folder / "login.env").write_text("HTTP_AUTHORIZATION=Bearer hf_very_secret_value\n")
    source = Path(small()["dataset"]["uri"])
    with FileServer(source.parent) as server:
        dataset = {"uri": f"{server.url}/{source.name}", "secretRef": {"name": "mine"}}
        workdir.write(small(dataset=dataset, evaluation={"enabled": False, "baseline": False}))
        result = workdir.finetune("run", "run.yaml", "--secret", "mine=login.env")
    assert result.code == 0, result.out + result.err
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer hf_very_secret_value"}
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
        ("../x", {"a": "b"}, "the run does not reference ConfigMap ../x; remove it"),
    ],
)
def test_a_file_from_the_internet_writes_nothing_outside_the_home(
    workdir: Workdir, name: str, data: dict[str, str], sentence: str
) -> None:
    evaluation = {"tasks": ["mine"], "taskFiles": {"name": "tasks"}}
    _file(workdir, {"dataset": {"uri": "./data.jsonl"}, "model": {"uri": "./model"}, "evaluation": evaluation}, name, data)
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
    assert "taskCode" not in status_of(workdir)["resolved"]
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


def test_a_missing_key_of_a_secret_stops_the_command(workdir: Workdir, small: Spec) -> None:
    workdir.write(small(dataset={"uri": "https://127.0.0.1:9/chat.jsonl", "secretRef": {"name": "mine", "key": "TOKEN"}}))
    (workdir.folder / "other").write_text("A=b\n")
    result = workdir.finetune("run", "run.yaml", "--secret", "other=other")
    assert result.code == 65
    assert 'waiting: SecretMissing: secret "mine" has no key TOKEN; give --secret mine=FILE' in result.out
    assert result.err.splitlines() == [
        "--secret other: the run does not read this Secret; use a name that it reads: mine.",
        "demo: stopped, because Secret mine has no key TOKEN; continue it with: finetune resume demo --secret other=other --secret mine=FILE",
    ]
    again = workdir.finetune("resume", "demo", "--secret", "mine=other")
    assert again.code == 65
    assert "--secret mine: the run reads no key of it; its keys are A; name them as the run does: TOKEN." in again.err
    (workdir.folder / "right").write_text("TOKEN=x\n")
    found = workdir.start("resume", "demo", "--secret", "mine=right")
    assert found.stdout
    assert any("dataset: running" in line for line in found.stdout)
    found.send_signal(signal.SIGINT)
    found.communicate(timeout=60)
    assert found.returncode == 130


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
