"""What the files of tasks may read: the task files, allowed web servers and the hub. lm-eval itself reads anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_stages.evaluation.task_data import require_own_data
from finetune_stages.sdk import StageError
from finetune_stages.sources.task_files import Definition, TaskFiles, builtin_tasks
from web_server import Answer, FileServer, Request

RECITE = {"test_split": "test", "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "text"}
URL = "https://example.org/rows.jsonl"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user's task files, which is the working directory, beside a workspace."""
    for name in ("workspace/runs", "mounted", "data"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "workspace")
    for name in ("mounted", "data", "workspace/runs"):
        (tmp_path / name / "rows.jsonl").write_text(json.dumps({"text": "one"}) + "\n")
    monkeypatch.chdir(tmp_path / "mounted")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "mounted"


def read(folder: Path, **config: Any) -> int:
    """Read the data of a task as stage *evaluation* does, and return its number of documents."""
    from lm_eval.tasks import TaskManager

    from finetune_stages.evaluation.tasks import build_tasks

    (folder / "t.yaml").write_text(yaml.safe_dump({"task": "t", **RECITE, **config}))
    found = TaskFiles([folder]).find(["t"])
    require_own_data(folder.parent / "workspace", [folder], found)
    (task,) = build_tasks(["t"], found, TaskManager(include_defaults=False))
    return len(task.task_docs)


def rejection(folder: Path, own: bool = True, **config: Any) -> str | None:
    """The rejection of a definition, by its text alone."""
    path = (folder if own else builtin_tasks()) / "t.yaml"
    try:
        require_own_data(folder.parent / "workspace", [folder], [Definition(path, config)])
    except StageError as error:
        return f"{error.reason}: {error.message}"
    return None


def files(path: str) -> dict[str, Any]:
    return {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": [path]}}}


@pytest.mark.parametrize(
    "path",
    [
        "{root}/workspace/runs/rows.jsonl", "../workspace/runs/rows.jsonl", "file://{root}/workspace/runs/rows.jsonl",
        "file:{root}/workspace/runs/rows.jsonl", "local://{root}/workspace/runs/rows.jsonl", "{root}/link/runs/rows.jsonl",
        "{root}/workspace/**/rows.jsonl", "{root}/w*/runs/rows.jsonl", "*/../../workspace/runs/rows.jsonl", "{root}/workspace",
        "{root}/data/rows.jsonl", "~/rows.jsonl", "/etc/passwd", "zip://rows.jsonl::{root}/workspace/rows.zip",
    ],
)  # fmt: skip
def test_a_task_reads_no_file_beside_the_task_files(folder: Path, path: str) -> None:
    text = path.format(root=folder.parent)
    assert rejection(folder, **files(text)) == (
        f"TaskInvalid: evaluation.taskFiles: t.yaml: dataset_kwargs.data_files: {text} is not a file of the ConfigMap of evaluation.taskFiles;"
        " add the file to it and write its key."
    )


@pytest.mark.parametrize(
    "text",
    [
        "s3://bucket/rows.jsonl", "ftp://example.org/rows.jsonl", "memory://rows.jsonl", "HTTPS://example.org/rows.jsonl",
        "reference::https://example.org/rows.json", "dir://rows::https://example.org", "filecache::https://example.org/rows",
        "github://org:repo@main/rows.jsonl",
    ],
)  # fmt: skip
def test_a_task_reads_no_other_kind_of_location(folder: Path, text: str) -> None:
    assert rejection(folder, **files(text)) == (
        f"TaskInvalid: evaluation.taskFiles: t.yaml: dataset_kwargs.data_files: {text} is a location that tasks cannot read; use a key of the"
        " ConfigMap of evaluation.taskFiles, http(s):// or hf://."
    )


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"dataset_path": "{path}"}, "dataset_path"),
        ({"dataset_path": "json", "dataset_kwargs": {"data_dir": "{path}"}}, "dataset_kwargs.data_dir"),
        ({"dataset_path": "json", "dataset_kwargs": {"cache_dir": "{path}"}}, "dataset_kwargs.cache_dir"),
        ({"use_prompt": "{path}/prompts.yaml:first"}, "use_prompt"),
        ({"metric_list": [{"metric": "{path}/luck.py"}]}, "metric"),
        (
            {"group": "g", "task": [{"task": "t", **files("{path}")}, "x"]},
            "dataset_kwargs.data_files",
        ),
    ],
    ids=["loader", "folder", "cache", "prompts", "metric", "member of a group"],
)
def test_every_key_with_a_location_is_checked(folder: Path, config: dict[str, Any], key: str) -> None:
    path = f"{folder.parent}/workspace"
    found = rejection(folder, **json.loads(json.dumps(config).replace("{path}", path)))
    assert found is not None
    assert found.startswith(f"TaskInvalid: evaluation.taskFiles: t.yaml: {key}: {path}")


@pytest.mark.parametrize(
    "config",
    [
        files("rows.jsonl"), files("*.jsonl"), files(URL), files("hf://datasets/org/data/rows.jsonl"), files(f"zip://rows.jsonl::{URL}"),
        files("a\0b"), {"dataset_path": "org/data", "dataset_name": "en"}, {"use_prompt": "qa-basic:question-newline-answer"},
        {"dataset_path": "csv", "dataset_kwargs": {"data_files": "rows.csv", "sep": "/"}}, {"metric_list": [{"metric": "acc"}]},
    ],
    ids=["key", "keys", "web", "hub", "archive", "no path", "data set", "prompt", "separator", "metric"],
)  # fmt: skip
def test_what_a_task_may_read(folder: Path, config: dict[str, Any]) -> None:
    assert rejection(folder, **config) is None


def test_a_task_of_lm_eval_may_have_any_path_outside_of_the_workspace(folder: Path) -> None:
    assert rejection(folder, own=False, **files("/gpfs/data.csv")) is None
    assert rejection(folder, own=False, **files(f"{folder.parent}/w*/rows.jsonl")) is not None


def test_a_task_of_lm_eval_without_task_files_reads_no_workspace(folder: Path) -> None:
    definition = Definition(builtin_tasks() / "t.yaml", files(f"{folder.parent}/workspace/rows.jsonl"))
    with pytest.raises(
        StageError, match=r"^evaluation\.tasks: t\.yaml: dataset_kwargs\.data_files: .* is not a file of the ConfigMap"
    ):
        require_own_data(folder.parent / "workspace", [], [definition])


@pytest.mark.parametrize("path", ["{root}/workspace/runs/rows.jsonl", "file://{root}/data/rows.jsonl"])
def test_lm_eval_alone_would_read_these_files(folder: Path, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sub").mkdir()
    text = path.format(root=folder.parent)
    with pytest.raises(StageError, match="is not a file of the ConfigMap"):
        read(folder, **files(text))
    monkeypatch.setattr(f"{__name__}.require_own_data", lambda *_: None)
    assert read(folder, **files(text)) == 1


def test_data_comes_from_allowed_web_servers_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileServer(folder.parent / "data") as server:
        web = files(f"{server.url}/rows.jsonl")
        monkeypatch.setenv("FINETUNE_ALLOWED_HOSTS", '{"hosts": ["example.org"]}')
        with pytest.raises(StageError) as raised:
            read(folder, **web)
        assert raised.value.reason.name == "HostNotAllowed"
        assert raised.value.message == (
            "evaluation.taskFiles: t.yaml: dataset_kwargs.data_files: host 127.0.0.1 is not allowed here; use one of allowedHosts.hosts in"
            " the operator's configuration (example.org)."
        )
        assert server.requests == []
        monkeypatch.setenv("FINETUNE_ALLOWED_HOSTS", '{"hosts": ["127.0.0.1"]}')
        assert read(folder, **web) == 1


@pytest.mark.parametrize("header", ["Location", "URI"])
def test_a_redirect_of_data_to_a_host_that_is_not_allowed_is_not_followed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    monkeypatch.setenv("FINETUNE_ALLOWED_HOSTS", '{"hosts": ["localhost"]}')
    with FileServer(folder.parent / "data") as server:

        class Elsewhere(FileServer):
            def answer(self, request: Request, body: bytes) -> Answer:
                return Answer(302, {header: f"{server.url}/rows.jsonl"})

        with Elsewhere(folder) as first:
            with pytest.raises(StageError) as raised:
                read(folder, **files(f"{first.url.replace('127.0.0.1', 'localhost')}/rows.jsonl"))
            assert first.requests
        assert raised.value.reason.name == "HostNotAllowed", raised.value.message
        assert "redirects: host 127.0.0.1 is not allowed here; use one of allowedHosts.hosts" in raised.value.message
        assert server.requests == []


def test_the_hub_of_data_must_be_allowed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_ALLOWED_HOSTS", '{"hubs": ["hub.example.org"]}')
    found = rejection(folder, **files("hf://datasets/org/data/rows.jsonl"))
    assert found is not None
    assert "host huggingface.co is not allowed here; use one of allowedHosts.hubs" in found
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example.org")
    assert rejection(folder, **files("hf://datasets/org/data/rows.jsonl")) is None


def test_a_file_of_a_metric_is_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval passes an unknown metric to evaluate, which runs a file of this name in the working directory."""
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", str(folder.parent / "modules"))
    (folder / "luck.py").write_text("open('ran', 'w').close()\n")
    lucky = {**files("rows.jsonl"), "metric_list": [{"metric": "luck.py", "aggregation": "mean", "higher_is_better": True}]}
    monkeypatch.setenv("FINETUNE_TASK_CODE", "0")
    with pytest.raises(StageError) as raised:
        read(folder, **lucky)
    assert raised.value.message == (
        "evaluation.taskFiles: t.yaml: metric: luck.py is not a metric of lm-eval, and code of a metric is not allowed here; use one of lm-eval,"
        " or have it allowed: with allow.taskCode in the operator's configuration, or on your machine with --allow-code."
    )
    assert not (folder / "ran").exists()
    assert read(folder, **{**lucky, "metric_list": [{"metric": "bits_per_byte"}]}) == 1
    monkeypatch.delenv("FINETUNE_TASK_CODE")
    read(folder, **lucky)
    assert (folder / "ran").exists(), "lm-eval runs it"
