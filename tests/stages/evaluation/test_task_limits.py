"""Templates and patterns of a user's task that do not end: they fail the task, and the GPUs of the evaluation are free."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from lm_eval.tasks import TaskManager

from finetune_stages.evaluation.own_task import OwnTask
from finetune_stages.evaluation.tasks import build_tasks
from finetune_stages.sdk import StageError
from finetune_stages.sources.task_files import TaskFiles

BACKTRACKING = "((.*)*)*((.*)*)*Q$"
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("finetune_stages.sdk.bounded.SECONDS", 0.5)
    monkeypatch.setattr("finetune_stages.evaluation.own_task.FILTER_SECONDS", 0.5)
    monkeypatch.chdir(tmp_path)


def build(folder: Path, **config: Any) -> OwnTask:
    (folder / "rows.jsonl").write_text(json.dumps({"question": "Q", "answer": "a"}) + "\n")
    task = {
        "task": "quiz", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}}, "test_split": "test",
        "output_type": "generate_until", "doc_to_text": "question", "doc_to_target": "answer",
        "metric_list": [{"metric": "exact_match"}], **config,
    }  # fmt: skip
    (folder / "quiz.yaml").write_text(yaml.safe_dump(task))
    (built,) = build_tasks(["quiz"], TaskFiles([folder]).find(["quiz"]), TaskManager(include_defaults=False))
    assert isinstance(built, OwnTask)
    return built


@pytest.mark.parametrize(
    ("template", "why"),
    [(ENDLESS, "takes longer than 0.5 s"), ("{{ question * 3000000000 }}", "uses more than 1 GiB of memory")],
    ids=["loops", "memory"],
)
def test_a_template_that_does_not_end_is_invalid(template: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(StageError) as raised:
        build(tmp_path, doc_to_text=template)
    assert raised.value.reason.name == "TaskInvalid"
    assert f"doc_to_text cannot be rendered (LimitExceeded: {why})" in raised.value.message


def test_a_filter_that_does_not_end_is_invalid(tmp_path: Path) -> None:
    pattern = {"function": "regex", "regex_pattern": BACKTRACKING}
    task = build(tmp_path, filter_list=[{"name": "slow", "filter": [pattern, {"function": "take_first"}]}])
    task._instances = [SimpleNamespace(resps=["a" * 40], doc={}, filtered_resps={})]
    with pytest.raises(StageError, match=r"^Task quiz \(.*\): filter_list takes longer than 0\.6 s; simplify its patterns\.$"):
        task.apply_filters()


def test_a_metric_that_does_not_end_is_invalid(tmp_path: Path) -> None:
    task = build(tmp_path, metric_list=[{"metric": "exact_match", "regexes_to_ignore": [BACKTRACKING]}])
    with pytest.raises(StageError, match=r"^Task quiz \(.*\): metric_list takes longer than 0\.5 s for one document; simplify"):
        task.process_results({"question": "Q", "answer": "a"}, ["a" * 40])


def test_other_filters_and_metrics_are_applied(tmp_path: Path) -> None:
    pattern = {"function": "regex", "regex_pattern": "a+"}
    task = build(tmp_path, filter_list=[{"name": "quick", "filter": [pattern, {"function": "take_first"}]}])
    instance = SimpleNamespace(resps=["baab"], doc={}, filtered_resps={})
    task._instances = [instance]
    task.apply_filters()
    assert instance.filtered_resps == {"quick": "aa"}
    assert task.process_results({"question": "Q", "answer": "a"}, ["a"]) == {"exact_match": 1.0}
