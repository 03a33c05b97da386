"""Program and work of stages *evaluation* and *baseline*.

Cached results and invalid inputs are detected before lm-eval and torch are imported, which takes seconds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_contract import reasons
from finetune_contract.documents import AGAIN_VARIABLE, EvaluationInputs
from finetune_contract.progress import Progress
from finetune_contract.result import EvaluationOutputs, Result
from finetune_stages.chat.task_rows import own_roots, require_own_names
from finetune_stages.sdk import Context, Finished, Reuse, Seal, StageError, quick_imports, read_seal, run_stage, write_file
from finetune_stages.sdk.gpus import require_gpus
from finetune_stages.sdk.identity import require_content, require_reported
from finetune_stages.sdk.redaction import Redactor

from .baselines import baseline_entry, keep_baseline, take_baseline
from .passages import Row, chat_tasks, read_passages
from .questions import find_definitions, fingerprint_of, model_directory, revalidate, sealed
from .task_data import data_directory

if TYPE_CHECKING:
    from .measure import Measured

SUBJECTS = {"final": "training", "base": "model"}
"""The stage that reports the digest of each subject."""
_REUSE = Reuse(files=("results/lm-eval-{stage}.json", "results/samples-{stage}.*.jsonl"), revalidate=revalidate)


def main() -> int:
    """Run the stage and return its exit code."""
    return run_stage(("evaluation", "baseline"), work, outputs_exist, reuse=_REUSE)


def outputs_exist(context: Context, result: Result) -> bool:
    """Return whether the model of an earlier result is still in the run's folder, unchanged."""
    seal = read_seal(model_directory(context, context.inputs(EvaluationInputs)))
    return seal is not None and seal.digest == result.outputs.get("modelDigest")


def work(context: Context) -> Finished:
    """Measure the model.

    Raises:
        StageError: any failure of the modules in this package.
    """
    inputs = context.inputs(EvaluationInputs)
    model = model_directory(context, inputs)
    seal = sealed(model)
    require_reported(context, model, seal, SUBJECTS[inputs.subject])
    folder = context.path(f"{context.layout.root}/results")
    require_own_names(inputs.tasks)
    fingerprint = fingerprint_of(context, inputs, seal)
    entry = baseline_entry(context, inputs, fingerprint) if fingerprint and inputs.subject == "base" else None
    known = take_baseline(entry, folder) if entry and AGAIN_VARIABLE not in os.environ else None
    if known:
        return known
    measured = _measure(context, inputs, seal)
    finished = replace(_finished(inputs, seal, measured), fingerprint=None if inputs.subject == "base" else fingerprint)
    files = _write(folder, context.document.stage, measured)
    if entry:
        keep_baseline(context, entry, finished, files)
    return finished


def _measure(context: Context, inputs: EvaluationInputs, seal: Seal) -> Measured:
    rows = _chat_rows(context, inputs)
    definitions = find_definitions(context, inputs) if inputs.tasks else []
    if not rows and not inputs.tasks:
        raise StageError(
            reasons.NOTHING_TO_EVALUATE,
            "evaluation.tasks: it is empty, and no held-out row can be measured; set a task, or hold rows out with dataset.trainSplit below 1.",
        )
    require_gpus("evaluation.gpus")
    _prepare_libraries(inputs, offline=not definitions)
    require_content(context, model_directory(context, inputs), seal, SUBJECTS[inputs.subject])
    context.report(Progress(percent=0, note="loading lm-eval"), force=True)
    with quick_imports():
        from .measure import measure

    return measure(context, inputs, model_directory(context, inputs), rows, definitions)


def _chat_rows(context: Context, inputs: EvaluationInputs) -> dict[str, list[Row]]:
    """Return the rows of each task with chat rows: the held-out rows and the user's files."""
    rows = {name: read_passages(file) for name, file in chat_tasks(context, inputs).items()}
    return {name: found for name, found in rows.items() if found}


def _prepare_libraries(inputs: EvaluationInputs, offline: bool) -> None:
    """Set the environment that the libraries read at import. ``offline``: no task needs the hub."""
    os.chdir(data_directory(own_roots(inputs.task_files)))  # lm-eval opens relative data files from here
    os.environ.update(
        {
            "DISABLE_MULTIPROC": "1",  # lm-eval's bootstrap would fork a process per core after torch started threads
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
    from .scores import flat_scores

    scores = flat_scores(measured.results)
    outputs = EvaluationOutputs(
        model_digest=seal.digest, eval_rows=measured.rows, tasks=measured.tasks, higher_is_better=scores.higher_is_better
    )
    times = ", ".join(f"{what} {seconds:.1f} s" for what, seconds in measured.seconds.items())
    message = f"{inputs.subject} model measured on {', '.join(measured.tasks)} ({times})"
    return Finished(outputs, scores.metrics, message=message, warnings=measured.warnings)


def _write(folder: Path, stage: str, measured: Measured) -> list[Path]:
    """Write lm-eval's full results and samples, remove those of an earlier round, and return the files."""
    from .scores import safe

    files, redact = [], Redactor()
    for task, samples in measured.samples.items():
        lines = (json.dumps(redacted(sample, redact), ensure_ascii=False) + "\n" for sample in samples)
        files.append(folder / f"samples-{stage}.{safe(task)}.jsonl")
        write_file(files[-1], "".join(lines).encode(errors="replace"))
    files.append(folder / f"lm-eval-{stage}.json")
    write_file(files[-1], json.dumps(redacted(measured.results, redact), indent=1).encode())
    _remove_others(folder.glob(f"samples-{stage}.*.jsonl"), files)
    return files


def _remove_others(found: Iterable[Path], kept: list[Path]) -> None:
    for file in found:
        if file not in kept:
            file.unlink()


def redacted(value: Any, redact: Callable[[str], str]) -> Any:
    """Return a JSON value with secrets replaced in every text, also in keys: a task's template or data can have those of the pod."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact(str(_plain(key))): redacted(item, redact) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(item, redact) for item in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return redacted(_plain(value), redact)


def _plain(value: Any) -> Any:
    """Return a JSON value: a NumPy number as a number, a set as a list, anything else as text."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return value.item()
    return sorted(value, key=str) if isinstance(value, (set, frozenset)) else str(value)
