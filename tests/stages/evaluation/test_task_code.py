"""Code in task files, where the platform does not allow it."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_stages.evaluation.task_rules import require_no_code
from finetune_stages.sdk import StageError
from finetune_stages.sources.task_files import TaskFiles

WITH_CODE = {
    "function": "task: mine\nprocess_docs: !function utils.f\n",
    "class": "task: mine\nclass: !function utils.Mine\n",
    "hf_evaluate": "task: mine\nmetric_list:\n- metric: mine\n  hf_evaluate: true\n",
    "included": "task: mine\ninclude: base.yaml\n",
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
    assert raised.value.message.endswith("or ask an administrator to set allow.taskCode in the operator's configuration.")
    monkeypatch.delenv("FINETUNE_TASK_CODE")
    check(folder, text)


def test_a_task_file_without_code_is_accepted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINETUNE_TASK_CODE", "0")
    check(folder, "task: mine\ndoc_to_text: '{{question}}'\n")
