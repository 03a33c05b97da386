"""The work of stages *evaluation* and *baseline*, from the questions to their scores."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_contract import reasons
from finetune_contract.documents import EvaluationInputs
from finetune_contract.progress import Progress
from finetune_contract.result import EvaluationOutputs, Result
from finetune_contract.workspace import TASKS
from finetune_stages.kit import Context, Finished, Seal, StageError, read_seal, run_stage, write_file

from .baselines import baseline_entry, keep_baseline, take_baseline
from .rows import HOLDOUT, read_rows
from .scores import flat_scores, safe
from .task_files import TASK_FILES_VARIABLE, Definition, TaskFiles, builtin_tasks

if TYPE_CHECKING:
    from .measure import Measured


def main() -> int:
    """Run the stage and return its exit code."""
    return run_stage(("evaluation", "baseline"), work, still_there)


def still_there(context: Context, result: Result) -> bool:
    """Whether the model that an earlier result measured is still the one in its place."""
    seal = read_seal(_model_directory(context, context.inputs(EvaluationInputs)))
    return seal is not None and seal.digest == result.outputs.get("modelDigest")


def work(context: Context) -> Finished:
    """Put all questions to the model.

    What can be wrong with the wish is found before lm-eval and torch are imported, which takes seconds.

    Raises:
        StageError: every failure that the module names of this package suggest.
    """
    inputs = context.inputs(EvaluationInputs)
    model = _model_directory(context, inputs)
    seal = _sealed(model)
    rows = read_rows(context.path(context.layout.eval_data)) if inputs.holdout else []
    definitions = _definitions(context, inputs)
    if not rows and not inputs.tasks:
        raise StageError(
            reasons.NOTHING_TO_EVALUATE,
            f"evaluation.tasks is empty and {context.layout.eval_data} has no row: name a task, or hold rows out"
            " (dataset.trainSplit below 1).",
        )
    folder = context.path(f"{context.layout.root}/results")
    entry = baseline_entry(context, inputs, seal, definitions)
    known = take_baseline(entry, folder) if entry else None
    if known:
        return known
    _prepare_libraries(context, offline=not inputs.tasks)
    context.report(Progress(percent=0, note="loading lm-eval"), force=True)
    from .measure import measure

    measured = measure(context, inputs, model, rows, definitions)
    finished = _finished(inputs, seal, measured)
    files = _write(folder, context.document.stage, measured)
    if entry:
        keep_baseline(context, entry, finished, files)
    return finished


def _model_directory(context: Context, inputs: EvaluationInputs) -> Path:
    return context.path(context.layout.final_model if inputs.subject == "final" else context.layout.base_model)


def _sealed(model: Path) -> Seal:
    if not model.is_dir():
        raise StageError(reasons.MODEL_NOT_FOUND, f"There is no model at {model}: the stage that writes it has not finished.")
    seal = read_seal(model)
    if seal is None:
        raise StageError(
            reasons.MODEL_INCOMPLETE,
            f"The model at {model} is not sealed: whoever wrote it did not finish; run that stage again.",
        )
    return seal


def _definitions(context: Context, inputs: EvaluationInputs) -> list[Definition]:
    if not inputs.tasks:
        return []
    if HOLDOUT in inputs.tasks:
        raise StageError(
            reasons.TASK_INVALID,
            f"evaluation.tasks: {HOLDOUT!r} stands for the held-out rows (evaluation.holdout); rename the task.",
        )
    mounted = os.environ.get(TASK_FILES_VARIABLE) if inputs.task_files else None
    if inputs.task_files and not (mounted and Path(mounted).is_dir()):
        raise StageError(
            reasons.TASK_NOT_FOUND,
            f"{TASK_FILES_VARIABLE} names no directory: mount the ConfigMap of evaluation.taskFiles there.",
        )
    roots = [*([Path(mounted)] if mounted else []), context.path(TASKS), builtin_tasks()]
    return TaskFiles(roots).find(inputs.tasks)


def _prepare_libraries(context: Context, offline: bool) -> None:
    """Settings that the libraries read when they are imported. ``offline``: nothing that is asked for lies on the hub."""
    os.chdir(context.workspace)  # relative data files of a task are the workspace's
    os.environ.update(
        {
            "DISABLE_MULTIPROC": "1",  # lm-eval's bootstrap would fork a process a core, after torch started its threads
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "true",
            "TQDM_DISABLE": "1",
        }
    )
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


def _finished(inputs: EvaluationInputs, seal: Seal, measured: Measured) -> Finished:
    scores = flat_scores(measured.results)
    outputs = EvaluationOutputs(
        model_digest=seal.digest, eval_rows=measured.rows, tasks=measured.tasks, higher_is_better=scores.higher_is_better
    )
    times = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in measured.seconds.items())
    return Finished(outputs, scores.metrics, message=f"{inputs.subject} model measured on {', '.join(measured.tasks)} ({times})")


def _write(folder: Path, stage: str, measured: Measured) -> list[Path]:
    """The whole answer of lm-eval, and what was asked and answered, as files."""
    files = []
    for task, samples in measured.samples.items():
        lines = (json.dumps(sample, default=_plain, ensure_ascii=False) + "\n" for sample in samples)
        files.append(folder / f"samples-{stage}.{safe(task)}.jsonl")
        write_file(files[-1], "".join(lines).encode(errors="replace"))
    files.append(folder / f"lm-eval-{stage}.json")
    write_file(files[-1], json.dumps(measured.results, indent=1, default=_plain).encode())
    return files


def _plain(value: Any) -> Any:
    """A number of numpy's as a number, a set as a list, anything else as its text."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()
    return sorted(value, key=str) if isinstance(value, (set, frozenset)) else str(value)
