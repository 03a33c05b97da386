"""The evaluation program compared with bare lm-eval: the same model, tasks and batch size, each in a new process, in turns.

Both answer a multiple choice and a generation task on the example's base model, and must come to the same scores. Target: at most
1.05 times the wall time of ``lm_eval.simple_evaluate``.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from figures import machine, measured, spread

ROOT = Path(__file__).parents[2]
EXAMPLE = Path.home() / ".cache/finetune-operator/example"
REPEATS = 6
DOCUMENTS = 100
BATCH = 16
TASKS = ("choose", "say")

_BARE = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager
found = lm_eval.simple_evaluate(
    model="hf", model_args={"pretrained": sys.argv[1], "dtype": "float32"}, tasks=["choose", "say"], device="cpu", batch_size=16,
    task_manager=TaskManager(include_path="tasks", include_defaults=False), apply_chat_template=True, bootstrap_iters=1000,
)
with open(sys.argv[2], "w") as file:
    json.dump({task: {key: value for key, value in values.items() if isinstance(value, float)} for task, values in found["results"].items()}, file)
"""


def main() -> None:
    """Print the figures."""
    print("evaluation")
    print(machine())
    subprocess.run([sys.executable, str(ROOT / "hack/example/prepare.py")], check=True, stdout=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _prepare(place)
        ours, bare = _ours(place), [sys.executable, "-c", _BARE, str(EXAMPLE / "base-model"), "bare.json"]
        measured(bare, place)  # the data sets' cache is filled; and the files are in memory
        measured(ours, place)
        pairs = []
        for number in range(REPEATS):  # each is the first of a pair as often as the other
            both = [measured(words, place) for words in ((bare, ours) if number % 2 else (ours, bare))]
            times = [(one.wall, one.cpu) for one in both]
            pairs.append(tuple(times if number % 2 else reversed(times)))
        _require_equal(place)
    for number, what in enumerate(("wall", "CPU")):
        print(f"  bare lm-eval (baseline), {what}: {spread([first[number] for first, _ in pairs], 's')}")
        print(f"  evaluation program, {what}: {spread([second[number] for _, second in pairs], 's')}")
        print(f"  {what}, ratio of each pair: {spread([second[number] / first[number] for first, second in pairs], 'x')}")
    print(
        f"  ratio of the medians: {statistics.median(b[0] for _, b in pairs) / statistics.median(a[0] for a, _ in pairs):.3f} x"
    )


def _prepare(place: Path) -> None:
    """Write two tasks, and a run's folder with the sealed model as its base model."""
    from finetune_stages.sdk import seal_directory

    rows = [json.loads(line)["messages"] for line in (EXAMPLE / "signatures.jsonl").read_text().splitlines()[: DOCUMENTS + 3]]
    answers = [messages[-1]["content"] for messages in rows]
    documents = [
        {"question": messages[-2]["content"], "choices": answers[number : number + 4], "answer": answers[number]}
        for number, messages in enumerate(rows[:DOCUMENTS])
    ]
    tasks = place / "tasks"
    tasks.mkdir()
    (tasks / "rows.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    data = "dataset_path: json\ndataset_kwargs: {data_files: {test: tasks/rows.jsonl}}\ntest_split: test\ndoc_to_text: question\n"
    (tasks / "choose.yaml").write_text(
        f"task: choose\n{data}output_type: multiple_choice\ndoc_to_choice: choices\ndoc_to_target: 0\n"
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    (tasks / "say.yaml").write_text(
        f"task: say\n{data}output_type: generate_until\ndoc_to_target: answer\ngeneration_kwargs: {{until: [')'], max_gen_toks: 24}}\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    model = place / "runs/bench-00000000/base_model"
    shutil.copytree(EXAMPLE / "base-model", model)
    seal_directory(model)
    run = {"name": "bench", "namespace": "bench", "uid": "00000000"}
    inputs = {"subject": "base", "tasks": list(TASKS), "holdout": False, "batchSize": BATCH}
    (place / "document.json").write_text(json.dumps({"contractVersion": 2, "stage": "baseline", "run": run, "inputs": inputs}))


def _ours(place: Path) -> list[str]:
    """Run the program after the results of the last time are removed, which it would reuse."""
    script = 'rm -rf cache runs/*/results runs/*/attempts && exec "$0" -m finetune_stages.evaluation'
    os.environ.update(FINETUNE_CONFIG=str(place / "document.json"), FINETUNE_WORKSPACE=str(place))
    return ["sh", "-c", script, sys.executable]


def _require_equal(place: Path) -> None:
    bare = json.loads((place / "bare.json").read_text())
    ours = json.loads((place / "runs/bench-00000000/results/lm-eval-baseline.json").read_text())["results"]
    for task in TASKS:
        for key, value in bare[task].items():
            if abs(ours[task][key] - value) > 1e-9:
                raise SystemExit(f"{task} {key}: {ours[task][key]} here, {value} with bare lm-eval")
            print(f"  {task} {key}: {value:.4f} in both")


if __name__ == "__main__":
    main()
