"""Measurement with lm-eval: tasks, model, requests, scores. Importing this module imports torch."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lm_eval import evaluator
from lm_eval.api.model import CacheHook
from lm_eval.api.task import Task
from lm_eval.tasks import TaskManager
from lm_eval.utils import setup_logging

from finetune_contract import reasons
from finetune_contract.documents import EvaluationInputs
from finetune_contract.progress import Progress
from finetune_contract.workspace import HOLDOUT
from finetune_stages.sdk import Context, StageError
from finetune_stages.sdk.fault import classify, first_line
from finetune_stages.sources.task_files import Definition

from .chat_task import ChatRows
from .fewshot import check_examples
from .metric_names import check_names, leaves
from .passages import Row
from .scorer import Scorer, load_scorer
from .scorer import __file__ as scorer_file
from .tasks import build_tasks, task_fault

BOOTSTRAP_ITERATIONS = 1000
"""Bootstrap resamples for standard errors without a formula, accurate to about 2 %. lm-eval's default of 100,000 takes minutes."""


@dataclass(frozen=True)
class Measured:
    """Results of lm-eval.

    Attributes:
        results: the result of ``lm_eval.simple_evaluate``, without the samples.
        samples: requests and answers by task; empty if evaluation.logSamples is false.
        tasks: measured tasks, including the held-out rows.
        rows: number of scored held-out rows.
        seconds: duration of reading the tasks, loading the model and measuring.
        warnings: sentences for the user.
    """

    results: dict[str, Any]
    samples: dict[str, list[dict[str, Any]]]
    tasks: tuple[str, ...]
    rows: int
    seconds: dict[str, float]
    warnings: tuple[str, ...] = ()


class Watch(CacheHook):  # type: ignore[misc]
    """Progress reporter: lm-eval calls a cache hook for every answered request, the model for every forward pass."""

    def __init__(self, context: Context) -> None:
        super().__init__(None)
        self.tasks: Collection[Task] = ()
        """Tasks whose requests are counted after lm-eval has built them."""
        self._context, self._started = context, 0.0
        self._done = self._total = 0

    def add_partial(self, attr: str, req: Any, res: Any) -> None:  # noqa: ARG002 - lm-eval's interface
        """Count an answered request."""
        self._done += 1
        self.report()

    def report(self) -> None:
        """Report progress."""
        self._started = self._started or time.monotonic()
        self._total = self._total or sum(request.repeats for task in self.tasks for request in task.instances or ())
        share = min(1.0, self._done / self._total) if self._total else 0.0
        left = int((time.monotonic() - self._started) * (1 / share - 1)) if share else None
        self._context.report(
            Progress(
                percent=int(99 * share), step=self._done, total_steps=self._total, eta_seconds=left, note="measuring the model"
            )
        )


def measure(
    context: Context, inputs: EvaluationInputs, model: Path, rows: Mapping[str, Sequence[Row]], definitions: Sequence[Definition]
) -> Measured:
    """Measure ``model``, a directory with weights, tokenizer and chat template, and return its scores.

    The tasks are those of chat ``rows`` by name, including the held-out rows, and lm-eval's tasks in ``inputs``, with the
    ``definitions`` of these and their members.

    Raises:
        StageError: see :func:`build_tasks` and :func:`load_scorer`.
    """
    _log_at(inputs.verbosity)
    times = [time.monotonic()]
    context.report(Progress(percent=0, note="reading the tasks' data"), force=True)
    manager = TaskManager(include_defaults=False)
    tasks = build_tasks([name for name in inputs.tasks if name not in rows], definitions, manager, inputs.limit)
    check_names(tasks, rows)
    warnings = check_examples(leaves(tasks)[0], inputs)
    times.append(time.monotonic())
    context.report(Progress(percent=0, note="loading the model"), force=True)
    watch = Watch(context)
    scorer = load_scorer(model, inputs, watch.report)
    scorer.set_cache_hook(watch)
    chats = [ChatRows(name, found) for name, found in rows.items()]
    watch.tasks = manager.load([*chats, *tasks])["tasks"].values()
    times.append(time.monotonic())
    results = _ask(scorer, [*chats, *tasks], manager, inputs)
    times.append(time.monotonic())
    for task in chats:
        results["results"][task.task_name].update(task.standard_errors())
    results["config"]["batch_sizes"] = sorted(set(results["config"]["batch_sizes"]))  # lm-eval adds one per request
    seconds = {
        name: end - start
        for name, start, end in zip(("reading the tasks", "loading the model", "asking"), times, times[1:], strict=False)
    }
    samples = results.pop("samples", None) or {}
    names = tuple(dict.fromkeys([*rows, *inputs.tasks]))
    held_out = sum(len(task.scored) for task in chats if task.task_name == HOLDOUT)
    return Measured(results, samples, names, held_out, seconds, warnings)


def _log_at(verbosity: str) -> None:
    if verbosity.upper() not in logging.getLevelNamesMapping():
        raise StageError(
            reasons.BAD_EVALUATION_VALUE,
            f"evaluation.verbosity: {verbosity!r} is not a level; use DEBUG, INFO, WARNING or ERROR.",
        )
    setup_logging(verbosity.upper())


def _ask(scorer: Scorer, tasks: list[Any], manager: TaskManager, inputs: EvaluationInputs) -> dict[str, Any]:
    """Send all requests to the model and return the scores.

    Raises:
        StageError: ``TaskInvalid``: a task's own code or template failed; ``OutOfMemoryGPU``.
    """
    evaluator.get_git_commit_hash = lambda: None  # it calls git in the workspace, and git logs an error
    generation = {**inputs.generation, **({"until": list(inputs.until)} if inputs.until else {})}
    try:
        return evaluator.simple_evaluate(  # type: ignore[no-any-return]
            model=scorer, tasks=tasks, task_manager=manager, num_fewshot=inputs.fewshot, limit=inputs.limit,
            bootstrap_iters=BOOTSTRAP_ITERATIONS, log_samples=inputs.log_samples, system_instruction=inputs.system_instruction,
            apply_chat_template=bool(scorer.tokenizer.chat_template), gen_kwargs=generation or None, random_seed=inputs.seed,
            numpy_random_seed=inputs.seed, torch_random_seed=inputs.seed, fewshot_random_seed=inputs.seed,
        )  # fmt: skip
    except StageError:
        raise
    except Exception as error:
        if classify(error).reason is reasons.GPU_OUT_OF_MEMORY:
            raise StageError(
                reasons.GPU_OUT_OF_MEMORY,
                f"evaluation.batchSize: the GPU has too little memory for batches of {inputs.batch_size} ({first_line(error)}); lower it.",
            ) from error
        frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        if (
            generation
            and isinstance(error, (ValueError, TypeError))
            and any("/transformers/generation/" in name for name in frames)
        ):
            raise StageError(
                reasons.BAD_EVALUATION_VALUE,
                f"evaluation.generation ({', '.join(generation)}): the model rejects it ({first_line(error)}); correct it.",
            ) from error
        if scorer_file in frames:
            raise
        raise task_fault(error, _asked(error, inputs)) from error


def _asked(error: Exception, inputs: EvaluationInputs) -> str:
    """Return the task and document where lm-eval raised ``error``, as far as they are in its local variables."""
    task = document = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found = next((each for each in (frame.f_locals.get("self"), frame.f_locals.get("task")) if isinstance(each, Task)), None)
        task, document = found or task, frame.f_locals.get("doc_id", document)
    if task is None:
        return f"evaluation.tasks ({', '.join(inputs.tasks)})"
    return f"Task {task.task_name}" + (f", document {document + 1}" if isinstance(document, int) else "")
