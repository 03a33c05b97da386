"""Errors of the libraries about an unusable task or model, as one sentence with a reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.documents import EvaluationInputs, RunInfo, StageDocument
from finetune_contract.workspace import Attempt
from finetune_stages.sdk import Context, StageError
from finetune_stages.sources.task_files import TaskFiles

from .conftest import write_tasks


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a user's task files, which is the working directory."""
    write_tasks(tmp_path / "tasks")
    monkeypatch.chdir(tmp_path / "tasks")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "tasks"


def replace_text(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "names", "words"),
    [
        (lambda tasks: (tasks / "capitals.jsonl").unlink(), ["say"], "capitals.jsonl'"),
        (lambda tasks: (tasks / "capitals.jsonl").write_text('{"question": '), ["say"], "say.yaml): row 1 (line 1) of capitals.jsonl is not JSON"),
        (lambda tasks: (tasks / "capitals.jsonl").write_text(""), ["say"], "its data has no rows"),
        (lambda tasks: replace_text(tasks / "say.yaml", "test_split: test", "test_split: exam"), ["say"], "'exam'"),
        (lambda tasks: replace_text(tasks / "say.yaml", "test_split: test", "test_spilt: test"), ["say"], "test_spilt"),
        (lambda tasks: replace_text(tasks / "say.yaml", "doc_to_text: question", "doc_to_text: '{{queston}}'"), ["say"], "queston"),
        (lambda tasks: replace_text(tasks / "say.yaml", "generate_until", "improvise"), ["say"], "improvise"),
        (lambda tasks: replace_text(tasks / "broken_score.yaml", "broken.score", "broken.rate"), ["broken_score"], "no function 'rate'"),
        (lambda tasks: replace_text(tasks / "say.yaml", "task: say", "task: say\nunsafe_code: true"), ["say"], "runs code that the model generates"),
        (lambda tasks: replace_text(tasks / "say.yaml", "task: say", "task: say\ndoc_to_image: x"), ["say"], "images or audio"),
        (
            lambda tasks: replace_text(tasks / "say.yaml", "doc_to_text: question", "doc_to_text: '{{cycler.__init__.__globals__.os.getpid()}}'"),
            ["say"], "access to attribute '__init__' of 'type' object is unsafe",
        ),
        (lambda tasks: None, ["quizzes", "capitals"], "Duplicate task 'capitals'"),
    ],
    ids=[
        "no data file", "broken data", "empty data", "unknown split", "unknown key", "unknown column", "unknown output type",
        "no such function", "runs code", "pictures", "code in a template", "asked twice",
    ],
)  # fmt: skip
def test_a_task_that_cannot_be_used_is_named(tasks: Path, spoil: Callable[[Path], object], names: list[str], words: str) -> None:
    from lm_eval.tasks import TaskManager

    from finetune_stages.evaluation.tasks import build_tasks

    spoil(tasks)
    with pytest.raises(StageError) as raised:
        build_tasks(names, TaskFiles([tasks]).find(names), TaskManager(include_defaults=False))
    assert raised.value.reason.name == "TaskInvalid"
    assert words in raised.value.message
    assert "\n" not in raised.value.message


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def bring_own_code(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "own.py").write_text("raise SystemExit('code of a stranger ran')\n")


@pytest.mark.parametrize(
    ("model_args", "spoil", "reason", "words"),
    [
        ({"pretrained": "other/model"}, None, "BadEvaluationValue", "evaluation.modelArgs: pretrained cannot be set; remove it"),
        ({"max_model_len": 9}, None, "BadEvaluationValue", "evaluation.modelArgs (max_model_len): the backend hf rejects them"),
        ({"dtype": "float99"}, None, "BadEvaluationValue", "float99"),
        ({}, lambda model: truncate(model / "model.safetensors"), "ModelCorrupt", "cannot be read"),
        ({}, lambda model: (model / "model.safetensors").unlink(), "ModelIncomplete", "model.safetensors"),
        ({}, lambda model: (model / "config.json").write_text("{"), "ModelIncomplete", "config.json"),
        ({}, bring_own_code, "RemoteCode", "Set model.trustRemoteCode to true"),
    ],
    ids=["reserved", "another backend's", "no such type", "cut weights", "no weights", "broken configuration", "own code"],
)
def test_a_model_that_cannot_be_loaded_is_named(
    tiny_model: Path,
    tmp_path: Path,
    model_args: dict[str, Any],
    spoil: Callable[[Path], object] | None,
    reason: str,
    words: str,
) -> None:
    from finetune_stages.evaluation.scorer import load_scorer

    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    if spoil:
        spoil(model)
    with pytest.raises(StageError) as raised:
        load_scorer(model, EvaluationInputs("final", model_args=model_args), lambda: None)
    assert raised.value.reason.name == reason
    assert words in raised.value.message
    assert "\n" not in raised.value.message


def test_a_full_gpu_names_the_batch_size(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from finetune_stages.evaluation.measure import measure
    from finetune_stages.evaluation.scorer import Scorer

    def overflow(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand so on")

    monkeypatch.setattr(Scorer, "_model_call", overflow)  # no machine runs out of memory on demand
    context = Context(StageDocument(2, "evaluation", RunInfo("demo", "team-a", "0" * 16), {}), tmp_path, Attempt(1, 1), "0" * 64)
    row = {"row": 1, "line": 1, "passages": [{"text": "question answer", "answers": [[9, 15]]}]}
    with pytest.raises(StageError, match=r"batches of 8 \(CUDA out of memory") as raised:
        measure(context, EvaluationInputs("final", batch_size=8), tiny_model, {"holdout": [row]}, [])
    assert raised.value.reason.name == "OutOfMemoryGPU"
