"""What the tests of stage *evaluation* share: a workspace with a model, held-out rows and tasks of a user's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.documents import RunInfo
from finetune_stages.sdk import Finished, seal_directory
from hub import Hub
from rendering import Tokenization, skill_rows

TASKS = {
    "capitals": """
        dataset_path: json
        dataset_kwargs: {data_files: {test: capitals.jsonl}}
        test_split: test
        fewshot_split: test
        output_type: multiple_choice
        doc_to_text: question
        doc_to_choice: choices
        doc_to_target: answer
        metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
        """,
    "say": """
        dataset_path: json
        dataset_kwargs: {data_files: {test: capitals.jsonl}}
        test_split: test
        output_type: generate_until
        doc_to_text: question
        doc_to_target: "{{choices[answer]}}"
        generation_kwargs: {until: ["."], max_gen_toks: 8}
        filter_list:
          - {name: whole, filter: [{function: take_first}]}
          - {name: first-word, filter: [{function: regex, regex_pattern: "(\\\\w+)"}, {function: take_first}]}
        metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
        """,
    "guess": """
        dataset_path: json
        dataset_kwargs: {data_files: {test: capitals.jsonl}}
        test_split: test
        output_type: loglikelihood
        doc_to_text: question
        doc_to_target: "{{choices[answer]}}"
        metric_list: [{metric: perplexity, aggregation: perplexity, higher_is_better: false}]
        """,
    "recite": """
        dataset_path: json
        dataset_kwargs: {data_files: {test: capitals.jsonl}}
        test_split: test
        output_type: loglikelihood_rolling
        doc_to_text: ""
        doc_to_target: question
        """,
    "broken_score": """
        include: guess.yaml
        process_results: !function broken.score
        metric_list: [{metric: luck, aggregation: mean, higher_is_better: true}]
        """,
}
QUIZZES = """
group: quizzes
task: [capitals]
aggregate_metric_list: [{metric: acc, aggregation: mean, weight_by_size: true}]
"""
CITIES = ["Paris", "Rome", "Oslo", "Bern", "Lima", "Cairo"]


def write_tasks(folder: Path) -> None:
    """The task files above, their data and their function."""
    folder.mkdir(parents=True)
    for name, text in TASKS.items():
        lines = [line.removeprefix("        ") for line in text.strip("\n").splitlines()]
        (folder / f"{name}.yaml").write_text("\n".join([f"task: {name}", *lines]) + "\n")
    (folder / "quizzes.yaml").write_text(QUIZZES)
    (folder / "broken.py").write_text("def score(doc, results):\n    return {'luck': float('nan')}\n")
    rows = [{"question": f"Which city is number {n}?", "choices": CITIES, "answer": n} for n in range(len(CITIES))]
    (folder / "capitals.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def chat_rows(count: int) -> list[dict[str, Any]]:
    """Rows as stage *dataset* leaves them: every third with a system message, every second with two answers."""
    single = skill_rows("purpose")
    rows = []
    for number in range(count):
        system = [{"role": "system", "content": "Answer in one sentence."}] if number % 3 == 0 else []
        more = single[count + number]["messages"] if number % 2 == 0 else []
        rows.append({"messages": [*system, *single[number]["messages"], *more]})
    return rows


def prepare(workspace: Path, root: str, model: Path, rows: int = 12) -> Finished:
    """What earlier stages leave: both models, sealed, and held-out rows; and the user's tasks. Return what tokenization found."""
    for name in ("training/final_model", "base_model"):
        shutil.copytree(model, workspace / root / name)
        seal_directory(workspace / root / name)
    write_tasks(workspace.parent / "task-files")
    return render(workspace, root, chat_rows(rows))


def render(workspace: Path, root: str, rows: list[dict[str, Any]], **inputs: Any) -> Finished:
    """What stage *tokenization* leaves of held-out rows and of tasks that are files of chat rows."""
    name, _, uid = root.removeprefix("runs/").rpartition("-")
    stage = Tokenization(workspace, RunInfo(name, "team-a", uid))
    stage.write(chat_rows(1), rows)
    return stage(**inputs)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """An empty hub."""
    with Hub(tmp_path / "hub") as server:
        yield server
