"""Reports about evaluation tasks of a user's own: the sentence that names task, file, row and field, before a model is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_contract.documents import EvaluationInputs
from finetune_stages.evaluation.scores import flat_scores
from finetune_stages.sdk import StageError
from finetune_stages.sources.task_files import TaskFiles
from reports.report import Report, reports

CHOICE = {
    "output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": "choices", "doc_to_target": "answer",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}  # fmt: skip
GENERATE = {
    "output_type": "generate_until", "doc_to_text": "question", "doc_to_target": "answer",
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}  # fmt: skip
GOOD = {"question": "q", "choices": ["a", "b"], "answer": 1}


@dataclass(frozen=True)
class Asked:
    """A task ``t`` on the file t.jsonl: its definition over a default, its rows (or the file's bytes), and the inputs."""

    rows: list[Any] | bytes
    task: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=lambda: CHOICE)
    inputs: dict[str, Any] = field(default_factory=dict)


def definition(name: str, base: dict[str, Any], **more: Any) -> dict[str, Any]:
    files = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "t.jsonl"}}, "test_split": "test"}
    return {"task": name, **files, **base, **more}


def write(folder: Path, definitions: list[dict[str, Any]], rows: list[Any] | bytes) -> Path:
    """The files of tasks in ``folder``, which is the working directory."""
    tasks = folder
    content = rows if isinstance(rows, bytes) else b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    (tasks / "t.jsonl").write_bytes(content)
    for number, each in enumerate(definitions):
        (tasks / f"{number}.yaml").write_text(yaml.safe_dump(each))
    return tasks


def build(tasks: Path, names: list[str], chats: tuple[str, ...] = (), **inputs: Any) -> list[Any]:
    """All that happens to ``names`` before a model is loaded."""
    from lm_eval.tasks import TaskManager

    from finetune_stages.evaluation.fewshot import check_examples
    from finetune_stages.evaluation.metric_names import check_names, leaves
    from finetune_stages.evaluation.tasks import build_tasks

    built = build_tasks(names, TaskFiles([tasks]).find(names), TaskManager(include_defaults=False), inputs.get("limit"))
    check_names(built, chats)
    check_examples(leaves(built)[0], EvaluationInputs("final", tasks=tuple(names), **inputs))
    return built


@pytest.fixture(autouse=True)
def _workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def rejection(reason: str, message: str) -> tuple[str, str]:
    return reason, message


def bad_row(number: int, problem: str) -> tuple[str, str]:
    return rejection("TaskInvalid", f"Task t (YAML), row {number} (line {number}) of t.jsonl: {problem}; correct it.")


@reports(
    Report(
        "label-beyond-the-choices", "EleutherAI/lm-evaluation-harness#2451", Asked([{**GOOD, "answer": 2}, GOOD]),
        bad_row(1, "doc_to_target (answer) is 2, which is none of its 2 choices (0 to 1)"),
    ),
    Report("label-beyond-the-choices-later", "own", Asked([GOOD, {**GOOD, "answer": 7}]), bad_row(2, "doc_to_target (answer) is 7, which is none of its 2 choices (0 to 1)")),
    Report("label-in-a-row-that-is-not-asked", "own", Asked([GOOD, {**GOOD, "answer": 7}], inputs={"limit": 1}), None),
    Report("negative-label", "own", Asked([GOOD, {**GOOD, "answer": -1}]), bad_row(2, "doc_to_target (answer) is -1, which is none of its 2 choices (0 to 1)")),
    Report("label-as-text-that-no-choice-has", "own", Asked([{**GOOD, "answer": "b"}, {**GOOD, "answer": "c"}]), bad_row(2, 'doc_to_target (answer) is "c", which is none of its 2 choices (0 to 1)')),
    Report("number-of-a-label-as-text", "own", Asked([{**GOOD, "answer": "1"}]), bad_row(1, 'doc_to_target (answer) is "1", which is none of its 2 choices (0 to 1)')),
    Report("label-between-two-choices", "own", Asked([{**GOOD, "answer": 0.5}, GOOD]), bad_row(1, "doc_to_target (answer) is 0.5, which is none of its 2 choices (0 to 1)")),
    Report("missing-label", "own", Asked([GOOD, {"question": "q", "choices": ["a", "b"]}]), bad_row(2, "doc_to_target (answer) is null or missing")),
    Report(
        "missing-label-in-a-template", "own", Asked([GOOD, {**GOOD, "answer": None}], {"doc_to_target": "{{answer}}"}),
        bad_row(2, "doc_to_target renders column answer, which is null or missing"),
    ),
    Report("missing-question-in-a-template", "own", Asked([GOOD, {**GOOD, "question": None}]), bad_row(2, "doc_to_text renders column question, which is null or missing")),
    Report("empty-choice", "EleutherAI/lm-evaluation-harness#2323", Asked([{**GOOD, "choices": ["", "b"]}] * 3), bad_row(1, "doc_to_choice (choices)[0] is empty")),
    Report("empty-choice-later", "own", Asked([GOOD, {**GOOD, "choices": ["a", ""]}]), bad_row(2, "doc_to_choice (choices)[1] is empty")),
    Report("no-choices", "own", Asked([GOOD, {**GOOD, "choices": []}]), bad_row(2, "doc_to_choice (choices) is [], which is not a list of texts")),
    Report("choices-are-numbers", "own", Asked([{**GOOD, "choices": [1, 2]}]), bad_row(1, "doc_to_choice (choices)[0] is 1, which is not text")),
    Report("choices-are-text", "own", Asked([{**GOOD, "choices": "ab"}]), bad_row(1, 'doc_to_choice (choices) is "ab", which is not a list of texts')),
    Report(
        "right-choice-stands-twice", "own", Asked([GOOD, {**GOOD, "choices": ["b", "a", "b"], "answer": 2}]),
        bad_row(2, 'its right answer "b" is among its choices more than once, at [0] and [2]'),
    ),
    Report("wrong-choice-stands-twice", "own", Asked([{**GOOD, "choices": ["a", "b", "a"]}]), None),
    Report(
        "question-is-a-number", "own", Asked([GOOD, {**GOOD, "question": "42"}]),
        bad_row(2, "doc_to_text is 42, which is not text"),
    ),
    Report("one-answer-and-several", "own", Asked([{**GOOD, "answer": [0, 1]}, {**GOOD, "answer": 1}]), bad_row(2, "doc_to_target (answer) is 1, one answer, and the first document's is a list of answers")),
    Report(
        "template-that-fails-later", "own", Asked([GOOD, GOOD], {"doc_to_text": "{{question[0]}}{{choices[answer + 1]}}"}),
        bad_row(1, "doc_to_text cannot be rendered (UndefinedError: list object has no element 2)"),
    ),
    Report(
        "template-with-a-fault", "own", Asked([GOOD], {"doc_to_text": "{{question"}),
        rejection("TaskInvalid", "Task t (YAML): doc_to_text is not a valid template (unexpected end of template, expected 'end of print statement'. in line 1); correct it."),
    ),
    Report("empty-data", "unslothai/unsloth#6824", Asked(b""), rejection("TaskInvalid", "Task t (YAML), t.jsonl: its data has no rows; add some.")),
    Report(
        "data-with-a-broken-row", "own", Asked(json.dumps(GOOD).encode() + b'\n{"question": '),
        rejection("TaskInvalid", "Task t (YAML): row 2 (line 2) of t.jsonl is not JSON (Expecting value at character 13); write one object per line."),
    ),
    Report(
        "data-is-a-pointer", "own", Asked(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"),
        rejection("TaskInvalid", "Task t (YAML): t.jsonl: is a Git LFS pointer, not the file itself; run git lfs pull in its repository."),
    ),
    Report("data-with-a-byte-order-mark-and-returns", "own", Asked(b"\xef\xbb\xbf" + json.dumps(GOOD).replace(": ", ":\r").encode() + b"\r\n"), None),
    Report("text-answer-missing", "own", Asked([{"question": "q", "answer": "a"}, {"question": "q", "answer": None}], base=GENERATE), bad_row(2, "doc_to_target (answer) is null or missing")),
    Report(
        "text-answer-and-list", "own", Asked([{"question": "q", "answer": "a"}, {"question": "q", "answer": "[1]"}], {"doc_to_target": "{{answer}}"}, GENERATE),
        bad_row(2, "doc_to_target is [1], a list of answers, and the first document's is one answer"),
    ),
    Report("answers-are-numbers", "own", Asked([{"question": "q", "answer": [1, 2]}], base=GENERATE), bad_row(1, "doc_to_target (answer) is [1, 2], which is not a list of texts")),
    Report("answer-is-an-object", "own", Asked([{"question": "q", "answer": {"x": 1}}], base=GENERATE), bad_row(1, "doc_to_target (answer) is {'x': 1}, which is not text")),
    Report("answer-to-score-is-empty", "own", Asked([{"question": "q", "answer": ""}], {"metric_list": [{"metric": "perplexity"}], "output_type": "loglikelihood"}, GENERATE), bad_row(1, "doc_to_target (answer) is empty, which is not text")),
    Report(
        "label-of-a-generated-choice", "own", Asked([GOOD, {**GOOD, "answer": -1}], {"doc_to_choice": "choices"}, GENERATE),
        bad_row(2, "doc_to_target (answer) is -1, which is not the number of a choice (0 to 1)"),
    ),
    Report(
        "more-examples-than-rows", "EleutherAI/lm-evaluation-harness#2323", Asked([{**GOOD, "question": f"q{n}"} for n in range(8)], inputs={"fewshot": 20}),
        rejection("BadEvaluationValue", "evaluation.fewshot: 20 is too large for task t, which has 8 rows for examples, without the row of the question; set it to at most 7, or add rows."),
    ),
    Report("as-many-examples-as-there-are", "own", Asked([{**GOOD, "question": f"q{n}"} for n in range(8)], {"doc_to_target": "{{choices[answer]}}"}, inputs={"fewshot": 7}), None),
    Report(
        "more-examples-than-different-rows", "own", Asked([GOOD, GOOD, GOOD], {"doc_to_target": "{{choices[answer]}}"}, inputs={"fewshot": 1}),
        rejection("BadEvaluationValue", "evaluation.fewshot: 1 is too large for task t, which has 3 rows for examples, without the row of the question; remove it, or add rows."),
    ),
    Report(
        "more-examples-than-rows-in-the-task", "own", Asked([GOOD], {"num_fewshot": 3}),
        rejection("TaskInvalid", "Task t: num_fewshot 3 is too large, the task has 1 row for examples, without the row of the question; remove it, or add rows."),
    ),
    Report(
        "example-without-text", "own", Asked([{**GOOD, "question": f"q{n}"} for n in range(8)], {"fewshot_config": {"doc_to_target": "{{missing}}"}}, inputs={"fewshot": 2}),
        bad_row(1, "it cannot be rendered as an example (UndefinedError: 'missing' is undefined)"),
    ),
    Report(
        "metric-that-is-never-computed", "own", Asked([GOOD], {"metric_list": [{"metric": "bleu"}]}),
        rejection("TaskInvalid", "Task t: metric bleu is not computed for output_type multiple_choice; use one of acc, acc_bytes, acc_mutual_info, acc_norm, brier_score, exact_match, f1, likelihood, mcc."),
    ),
    Report(
        "metric-stands-twice", "own", Asked([GOOD], {"metric_list": [{"metric": "acc"}, {"metric": "acc"}]}),
        rejection("TaskInvalid", "Task t: metric_list has acc more than once, and lm-eval uses only the last; keep one."),
    ),
    Report(
        "filter-stands-twice", "own",
        Asked([{"question": "q", "answer": "a"}], {"filter_list": [{"name": "f", "filter": [{"function": "take_first"}]}, {"name": "f", "filter": [{"function": "take_first"}]}]}, GENERATE),
        rejection("TaskInvalid", "Task t: filter_list has 'f' more than once, and lm-eval uses only the last; rename one."),
    ),
)  # fmt: skip
def test_documents(report: Report, tmp_path: Path) -> None:
    asked: Asked = report.given
    tasks = write(tmp_path, [definition("t", asked.base, **asked.task)], asked.rows)
    if report.expected is None:
        assert len(build(tasks, ["t"], **asked.inputs)) == 1
        return
    with pytest.raises(StageError) as raised:
        build(tasks, ["t"], **asked.inputs)
    assert (raised.value.reason.name, raised.value.message.replace(str(tasks / "0.yaml"), "YAML")) == report.expected


@reports(
    Report("dates-stay-text", "own", {"question": "2020-01-01 10:00:00", "choices": ["2020-01-01", "2021-05-06"], "answer": 1}, ("2020-01-01 10:00:00", ["2020-01-01", "2021-05-06"])),
    Report("line-separators-stay-in-text", "own", {"question": "a\u2028b", "choices": ["\x85", "b"], "answer": 1}, ("a\u2028b", ["\x85", "b"])),
)  # fmt: skip
def test_what_is_asked(report: Report, tmp_path: Path) -> None:
    (task,) = build(write(tmp_path, [definition("t", CHOICE)], [report.given]), ["t"])
    document = task.task_docs[0]
    assert (task.doc_to_text(document), task.doc_to_choice(document)) == report.expected


@pytest.mark.parametrize("splits", [{}, {"test_split": None, "validation_split": "test", "fewshot_split": "test"}])
def test_the_question_is_not_among_its_examples(tmp_path: Path, splits: dict[str, Any]) -> None:
    """lm-eval draws examples from the questions themselves where a task has no other rows, and could show the answer."""
    rows = [{"question": f"question {number}?", "answer": f"answer {number}"} for number in range(6)]
    (task,) = build(write(tmp_path, [definition("t", GENERATE, **splits)], rows), ["t"], fewshot=5)
    task.set_fewshot_seed(0)
    for row in task.task_docs:
        context = task.fewshot_context(row, 5)
        assert row["answer"] not in context
        assert sum(other["answer"] in context for other in rows) == 5


@reports(
    Report("names-with-one-safe-form", "own", [definition("a/b", CHOICE), definition("a_b", CHOICE)], (["a/b", "a_b"], "evaluation.tasks: task a/b and task a_b have the same name for a score, a_b; rename one of them.")),
    Report(
        "dots-of-a-name-and-of-a-filter", "own",
        [definition("x.exact_match", GENERATE, metric_list=[{"metric": "exact_match"}]), definition("x", GENERATE, filter_list=[{"name": "exact_match", "filter": [{"function": "take_first"}]}])],
        (["x.exact_match", "x"], "evaluation.tasks: task x.exact_match (exact_match, none) and task x (exact_match, exact_match) have the same name for a score, x.exact_match.exact_match; rename one of them."),
    ),
    Report("task-called-holdout-in-a-group", "own", [definition("holdout", CHOICE), {"group": "g", "task": ["holdout"]}], (["g"], "evaluation.tasks: 'holdout' is reserved for the held-out rows; rename your task or group.")),
    Report("group-called-holdout", "own", [definition("t", CHOICE), {"group": "holdout", "task": ["t"]}], (["holdout"], "evaluation.tasks: 'holdout' is reserved for the held-out rows; rename your task or group.")),
    Report("chat-task-and-task", "own", [definition("c/t", CHOICE)], (["c/t"], "evaluation.tasks: task c_t and task c/t have the same name for a score, c_t; rename one of them.")),
    Report("group-and-task", "own", [definition("t.1", CHOICE), {"group": "t/1", "task": ["t.1"]}, {"group": "t_1", "task": ["t/1"]}], (["t_1"], "evaluation.tasks: group t_1 and group t/1 have the same name for a score, t_1; rename one of them.")),
    Report(
        "group-metric-that-a-member-lacks", "own",
        [definition("t", CHOICE), definition("u", GENERATE, doc_to_target="{{answer}}"), {"group": "g", "task": ["t", "u"], "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}]}],
        (["g"], "Group g: aggregate_metric_list has acc, which its member u does not have; add it there, or remove it."),
    ),
    Report("group-that-contains-itself", "own", [definition("t", CHOICE), {"group": "g", "task": ["t", "g"]}], (["g"], "Task g (YAML): it contains itself, or is nested too deeply; correct its definition.")),
)  # fmt: skip
def test_names(report: Report, tmp_path: Path) -> None:
    tasks = write(tmp_path, report.given, [GOOD])
    names, message = report.expected
    with pytest.raises(StageError) as raised:
        build(tasks, names, chats=("c_t",))
    assert raised.value.reason.name == "TaskInvalid"
    assert raised.value.message.replace(str(tasks / "1.yaml"), "YAML") == message


@reports(
    Report("two-scores-of-one-name", "own", {"a/b": {"acc,none": 0.5}, "a_b": {"acc,none": 0.7}}, rejection("TaskInvalid", "evaluation.tasks: two scores have the name a_b.acc; rename a task, a metric or a filter.")),
    Report("score-that-is-no-number", "own", {"t": {"acc,none": [1, 2]}}, rejection("ScoreNotANumber", "t.acc is [1, 2]: ")),
    Report("score-that-no-float-holds", "own", {"t": {"acc,none": 10**400}}, rejection("ScoreNotANumber", "t.acc is 1000")),
)  # fmt: skip
def test_scores(report: Report) -> None:
    with pytest.raises(StageError) as raised:
        flat_scores({"results": report.given})
    assert raised.value.reason.name == report.expected[0]
    assert raised.value.message.startswith(report.expected[1])


@reports(
    Report("date-that-there-is-not", "own", "task: t\nversion: 2020-13-45\n", "month must be in 1..12"),
    Report(
        "include-that-is-no-name", "own", "task: t\ninclude: 3\n", "include is 3; write the name of a file, or a list of names."
    ),
    Report("tag-that-is-a-number", "own", "task: t\ntag: 3\n", None),
)
def test_definitions(report: Report, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(report.given)
    if report.expected is None:
        assert [each.tags for each in TaskFiles([tmp_path]).find(["t"])] == [{"3"}]
        return
    with pytest.raises(StageError) as raised:
        TaskFiles([tmp_path]).find(["t"])
    assert raised.value.reason.name == "TaskInvalid"
    assert report.expected in raised.value.message
