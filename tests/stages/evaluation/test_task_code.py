"""Code in task files, where the platform does not allow it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_stages.evaluation.metric_names import metrics_of_lm_eval
from finetune_stages.evaluation.task_code import guard_code
from finetune_stages.evaluation.task_rules import code_is_allowed, require_no_code
from finetune_stages.sdk import StageError
from finetune_stages.sources.task_files import Definition, TaskFiles, builtin_tasks

WITH_CODE = {
    "function": "task: mine\nprocess_docs: !function utils.f\n",
    "class": "task: mine\nclass: !function utils.Mine\n",
    "hf_evaluate": "task: mine\nmetric_list:\n- metric: mine\n  hf_evaluate: true\n",
    "included": "task: mine\ninclude: base.yaml\n",
    "replaced by the same key": "task: mine\ndoc_to_text: !function utils.f\ndoc_to_text: question\n",
    "included and replaced": "task: mine\ninclude: base.yaml\nprocess_docs: question\n",
    "merged and replaced": "task: mine\n<<: {doc_to_text: !function utils.f}\ndoc_to_text: question\n",
    "in pairs": "task: mine\nmetadata: {x: !!pairs [a: !function utils.f]}\n",
    "in a set": "task: mine\nmetadata: {x: !!set {? !function utils.f}}\n",
    "a key": "task: mine\nmetadata: {? !function utils.f : 1}\n",
    "an escaped tag": "task: mine\nmetadata: {x: !fun%63tion utils.f}\n",
    "a tag of its own": "%TAG !f! !func\n---\ntask: mine\nmetadata: {x: !f!tion utils.f}\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text("process_docs: !function utils.f\n")
    return tmp_path


def check(folder: Path, text: str) -> None:
    (folder / "mine.yaml").write_text(text)
    require_no_code([folder], TaskFiles([folder]).find(["mine"]))


@pytest.mark.parametrize("text", WITH_CODE.values(), ids=WITH_CODE)
def test_task_files_with_code_are_rejected_where_the_platform_does_not_allow_it(
    text: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINETUNE_TASK_CODE", "0")
    with pytest.raises(StageError) as raised:
        check(folder, text)
    assert raised.value.reason.name == "TaskInvalid"
    assert raised.value.message.startswith("evaluation.taskFiles: mine.yaml runs code (!function, class or hf_evaluate)")
    assert raised.value.message.endswith(
        "or have it allowed: with allow.taskCode in the operator's configuration, or on your machine with --allow-code."
    )
    monkeypatch.delenv("FINETUNE_TASK_CODE")
    check(folder, text)


def test_a_task_file_without_code_is_accepted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_TASK_CODE", "0")
    check(folder, "task: mine\ndoc_to_text: '{{question}}'\n")


@pytest.fixture
def guarded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module that leaves a mark, and lm-eval where code is not allowed."""
    (folder / "utils.py").write_text("open(__file__ + '.ran', 'w').close()\nf = 1\n")
    monkeypatch.setenv("FINETUNE_TASK_CODE", "0")
    guard_code(code_is_allowed())
    yield folder
    monkeypatch.delenv("FINETUNE_TASK_CODE", raising=False)
    guard_code(code_is_allowed())


def load(path: Path) -> Any:
    from lm_eval.tasks._factory import load_yaml

    return load_yaml(path, resolve_func=True)


@pytest.mark.parametrize("text", [text for text in WITH_CODE.values() if "hf_evaluate" not in text])
def test_lm_eval_itself_imports_no_function_of_a_task_file(text: str, guarded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (guarded / "mine.yaml").write_text(text)
    with pytest.raises(StageError, match=r"^evaluation\.taskFiles: !function utils\.\w+ runs code, which is not allowed here"):
        load(guarded / "mine.yaml")
    assert not (guarded / "utils.py.ran").exists()
    monkeypatch.delenv("FINETUNE_TASK_CODE")
    guard_code(code_is_allowed())
    (guarded / "mine.yaml").write_text("task: mine\nprocess_docs: !function utils.f\n")
    assert load(guarded / "mine.yaml")["process_docs"] == 1


def test_lm_evals_own_tasks_have_their_functions_and_metrics(guarded: Path) -> None:
    from lm_eval.api import task

    path = builtin_tasks() / "hellaswag/hellaswag.yaml"
    assert callable(load(path)["process_docs"])
    assert callable(task.get_metric("acc"))
    asked: list[str] = []
    definition = Definition(path, {"metric_list": [{"metric": "rouge_of_a_task"}]})
    guard_code(code_is_allowed(), metrics_of_lm_eval([definition]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluate.load", asked.append)
        task.get_metric("rouge_of_a_task", True)
    assert asked == ["rouge_of_a_task"]


@pytest.mark.parametrize(("name", "external"), [("owner/space", False), ("luck.py", False), ("acc", True)])
def test_lm_eval_itself_loads_no_other_metric(name: str, external: bool, guarded: Path) -> None:
    from lm_eval.api import task

    with pytest.raises(
        StageError, match=f"^evaluation.taskFiles: metric {name} is not a metric of lm-eval, and code of a metric"
    ):
        task.get_metric(name, external)
