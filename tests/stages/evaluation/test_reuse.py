"""Reuse of scores by another run, and its conditions."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.documents import EvaluationInputs, RunInfo, StageDocument
from finetune_contract.result import EvaluationOutputs
from finetune_contract.workspace import Attempt
from finetune_stages.evaluation.baselines import keep_baseline, take_baseline
from finetune_stages.evaluation.passages import chat_tasks
from finetune_stages.evaluation.questions import fingerprint_of
from finetune_stages.sdk import Context, Finished, StageError, read_seal, seal_directory

from .conftest import prepare, write_tasks

HEAVY = {"numpy", "torch", "transformers", "lm_eval", "yaml", "huggingface_hub"}


def as_run(programs: Any, letter: str) -> None:
    """Another run of the workspace, with what the stages before left for it."""
    before = programs.path(programs.layout.root)
    programs.run = RunInfo(f"run-{letter}", "team-a", letter * 16)
    folder = programs.path(programs.layout.root)
    if before.exists():
        shutil.copytree(before, folder, ignore=shutil.ignore_patterns("results", "attempts", "logs"))


def test_another_run_reuses_the_scores_and_damage_is_detected(run_stage_program: Any, tiny_model: Path) -> None:
    programs = run_stage_program
    as_run(programs, "a")
    prepare(programs.workspace, programs.layout.root, tiny_model)
    shutil.rmtree(programs.task_files)
    inputs = EvaluationInputs("final")
    first = programs("evaluation", inputs)
    assert (first.code, first.result.reused) == (0, False), first.errors
    files = ("lm-eval-evaluation.json", "samples-evaluation.holdout.jsonl")
    contents = [programs.path(f"{programs.layout.root}/results/{name}").read_bytes() for name in files]
    as_run(programs, "b")
    command = [sys.executable, "-X", "importtime", "-m", "finetune_stages.evaluation"]
    second = programs("evaluation", inputs, command=command)
    assert (second.code, second.result.reused) == (0, True), second.errors
    assert second.result.message == f"the same as run run-a: {first.result.message}"
    assert second.result.outputs == first.result.outputs
    assert {**second.result.metrics, "seconds": 0} == {**first.result.metrics, "seconds": 0}
    places = [programs.path(f"{programs.layout.root}/results/{name}") for name in files]
    assert [place.read_bytes() for place in places] == contents
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in second.errors.splitlines()}
    assert "finetune_stages" in imported
    assert not imported & HEAVY
    places[1].write_bytes(contents[1].replace(b"line", b"LINE", 1))  # a link: the other run's is damaged with it
    as_run(programs, "c")
    third = programs("evaluation", inputs)
    assert (third.code, third.result.reused) == (0, False), third.errors
    assert "its results/samples-evaluation.holdout.jsonl is gone or damaged" in third.output
    assert programs.path(f"{programs.layout.root}/results/{files[1]}").read_bytes() == contents[1]


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """An evaluation with a model, held-out rows and tasks of a user's own, none of which is opened."""
    workspace = tmp_path / "workspace"
    found = Context(StageDocument(2, "evaluation", RunInfo("demo", "a", "0" * 16), {}), workspace, Attempt(1, 1), "d" * 64)
    write_tasks(tmp_path / "task-files")
    for name in (found.layout.final_model, found.layout.base_model):
        (workspace / name).mkdir(parents=True)
        (workspace / name / "weights").write_text(name)
        seal_directory(workspace / name)
    holdout = workspace / found.layout.passages("holdout")
    holdout.parent.mkdir(parents=True)
    holdout.write_text("{}")
    seal_directory(workspace / found.layout.tokens)
    monkeypatch.setenv("FINETUNE_TASK_FILES", str(tmp_path / "task-files"))
    return found


def fingerprint(context: Context, *tasks: str, **stage_inputs: Any) -> dict[str, Any] | None:
    """What the scores of these tasks depend on, asked by a new process, as far as its caches go."""
    from finetune_stages.evaluation import questions

    questions._task_files.cache_clear()
    model = read_seal(context.path(context.layout.final_model))
    assert model is not None
    return fingerprint_of(context, EvaluationInputs("final", **{"tasks": tasks, "task_files": True, **stage_inputs}), model)


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("capitals.jsonl", "number 3", "number 9", False),
        ("capitals.yaml", "doc_to_text: question", "doc_to_text: 'Well: {{question}}'", False),
        ("quizzes.yaml", "mean", "mean ", True),
        ("say.yaml", "max_gen_toks: 8", "max_gen_toks: 9", True),
        ("../workspace/runs/demo-00000000/tokens/passages/holdout.jsonl", "{}", '{"row": 1}', False),
    ],
    ids=["data", "task", "spelling", "another task", "held-out rows"],
)
def test_what_a_user_changes_is_detected(context: Context, file: str, old: str, new: str, same: bool) -> None:
    before = fingerprint(context, "quizzes")
    assert before is not None
    path = context.workspace.parent / "task-files" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert (fingerprint(context, "quizzes") == before) == same


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dataset_path: json", "dataset_path: somebody/data"),
        ("capitals.jsonl", "none.jsonl"),
        ("capitals.jsonl", "https://example.org/capitals.jsonl"),
        ("doc_to_text: question", "doc_to_text: !function broken.score"),
        ("doc_to_text: question", "process_docs: !function broken.score\ndoc_to_text: question"),
        ("metric: acc,", "metric: acc, hf_evaluate: true,"),
    ],
    ids=["hub", "no file", "web", "function", "function elsewhere", "metric from elsewhere"],
)
def test_what_can_change_undetected_is_measured_again(context: Context, old: str, new: str) -> None:
    path = context.workspace.parent / "task-files/capitals.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert fingerprint(context, "quizzes") is None
    assert fingerprint(context) is not None


def test_a_benchmark_of_lm_evals_own_is_taken_as_fixed(context: Context) -> None:
    assert fingerprint(context, "arc_easy") is not None
    assert fingerprint(context, "arc_easy") != fingerprint(context, "arc_easy", "capitals")
    with pytest.raises(StageError, match="did you mean arc_easy"):
        fingerprint(context, "arc_esy")


def test_without_own_task_files_lm_evals_are_not_even_looked_at(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune_stages.sources import task_files

    monkeypatch.setattr(task_files, "_text", lambda path: pytest.fail(f"{path} was read"))
    found = fingerprint(context, "arc_easy", "mmlu", task_files=False)
    assert found is not None
    assert found["tasks"] == ""


def test_a_flipped_byte_in_a_kept_baseline_is_detected(context: Context, capsys: pytest.CaptureFixture[str]) -> None:
    context.become_current()
    samples, entry = context.path("samples.jsonl"), context.path("cache/baselines/key")
    samples.write_text('{"question": 1}\n')
    outputs = EvaluationOutputs("m" * 64, 1, ("holdout",))
    finished = Finished(outputs, {"holdout.loss": 2.5}, message="base model measured", warnings=("1 row is not measured",))
    keep_baseline(context, entry, finished, [samples])
    for name in ("samples.jsonl", "finished.json"):
        taken = take_baseline(entry, context.path("results"))
        assert taken is not None
        assert (taken.metrics, taken.message) == ({"holdout.loss": 2.5}, "the same as run demo: base model measured")
        assert taken.warnings == ("1 row is not measured",)
        sound = (entry / name).read_bytes()
        (entry / name).write_bytes(sound.replace(b"1", b"2").replace(b"2.5", b"2.4"))
        assert take_baseline(entry, context.path("results")) is None
        assert "is damaged: the model is measured again" in capsys.readouterr().out
        keep_baseline(context, entry, finished, [write(samples)])


def write(samples: Path) -> Path:
    """Write the file again: the cache entry links the old one."""
    samples.unlink()
    samples.write_text('{"question": 1}\n')
    return samples


def test_a_changed_file_of_chat_rows_is_measured_again(context: Context) -> None:
    (context.workspace.parent / "task-files/manners.jsonl").write_text("{}")
    file = context.path(context.layout.passages("manners"))
    file.write_text('{"row": 1}\n')
    before = fingerprint(context, "manners")
    assert before is not None
    assert fingerprint(context, "manners") == before
    file.write_text('{"row": 2}\n')
    assert fingerprint(context, "manners") != before


@pytest.mark.parametrize("holdout", [False, True])
def test_without_rendered_rows_a_file_of_chat_rows_is_no_unknown_task(holdout: bool, context: Context) -> None:
    shutil.rmtree(context.path(context.layout.tokens))
    (context.workspace.parent / "task-files/manners.jsonl").write_text("{}")
    inputs = EvaluationInputs("final", tasks=("manners",), holdout=holdout, task_files=True)
    with pytest.raises(StageError, match=r"tokens: it is not in the workspace; rerun from stage evaluation\.$") as raised:
        chat_tasks(context, inputs)
    assert raised.value.reason.name == "DatasetNotFound"
    assert chat_tasks(context, EvaluationInputs("final", tasks=("arc_easy",), holdout=False)) == {}
