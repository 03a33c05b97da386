"""Validation of few-shot examples: a task has enough of them, and the question is not one of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from lm_eval.api.samplers import ContextSampler, FirstNSampler
from lm_eval.api.task import ConfigurableTask

from finetune_contract import reasons
from finetune_contract.documents import EvaluationInputs
from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import first_line

from .own_task import OwnTask


def check_examples(tasks: Iterable[Any], inputs: EvaluationInputs) -> tuple[str, ...]:
    """Check that every task has enough examples, and return warnings for the user.

    Raises:
        StageError: ``BadEvaluationValue``: evaluation.fewshot is too large. ``TaskInvalid``: a task's num_fewshot is, or an example cannot
            be rendered.
    """
    warnings = []
    for task in tasks:
        if not isinstance(task, ConfigurableTask):
            continue
        stated = task.config.num_fewshot
        if inputs.fewshot and stated == 0:  # lm-eval's rule
            warnings.append(
                f"evaluation.fewshot: task {task.task_name} shows no examples because of its definition (num_fewshot: 0)."
            )
            continue
        count = int((inputs.fewshot if inputs.fewshot is not None else stated) or 0)
        if count > 0 and task.OUTPUT_TYPE != "loglikelihood_rolling":
            if isinstance(task, OwnTask):
                _leave_out_the_question(task)
            _check(task, count, "evaluation.fewshot" if inputs.fewshot is not None else None)
    return tuple(warnings)


def _check(task: ConfigurableTask, count: int, field: str | None) -> None:
    sampler: Any = getattr(task, "sampler", None)
    if type(sampler) not in (ContextSampler, FirstNSampler):
        return
    pool = list(sampler.df)
    if sampler.fewshot_indices:
        pool = pool[: len(sampler.fewshot_indices)]
    excluding = task.fewshot_cfg.split == task.config.test_split  # then lm-eval draws one more, and excludes the question
    copies = _copies(pool) if isinstance(task, OwnTask) and _source(task) == _asked(task) else 1
    most = len(pool) - copies if excluding else len(pool)
    if count > most:
        has = f"{len(pool):,} row{'' if len(pool) == 1 else 's'} for examples{', without the row of the question' if excluding else ''}"
        raise _too_many(task.task_name, count, field, has, most)
    if isinstance(task, OwnTask):
        _check_turns(task, pool)


def _too_many(task: str, count: int, field: str | None, has: str, most: int) -> StageError:
    """Return the error for a task that can show at most ``most`` examples; ``has`` completes "which has"."""
    remedy = f"set it to at most {most:,}, or add rows" if most > 0 else "remove it, or add rows"
    if field:
        return StageError(
            reasons.BAD_EVALUATION_VALUE, f"{field}: {count} is too large for task {task}, which has {has}; {remedy}."
        )
    return StageError(reasons.TASK_INVALID, f"Task {task}: num_fewshot {count} is too large, the task has {has}; {remedy}.")


def _source(task: ConfigurableTask) -> str | None:
    """Return the split of the examples, by lm-eval's rule."""
    config = task.config
    if task.fewshot_cfg.split is None and task.fewshot_cfg.samples is not None:
        return None
    return task.fewshot_cfg.split or config.training_split or config.validation_split or config.test_split  # type: ignore[no-any-return]


def _asked(task: ConfigurableTask) -> str | None:
    return task.config.test_split or task.config.validation_split  # type: ignore[no-any-return]


def _leave_out_the_question(task: OwnTask) -> None:
    """Exclude the question from the examples. lm-eval does so only if the task states the split explicitly."""
    if _source(task) == _asked(task):
        task.fewshot_cfg.split = task.config.test_split


def _copies(pool: Sequence[Any]) -> int:
    """Return the largest number of equal rows."""
    return max(Counter(json.dumps(row, sort_keys=True, default=str) for row in pool).values(), default=0)


def _check_turns(task: OwnTask, pool: Sequence[Any]) -> None:
    """Check that every example has its answer as text."""
    own = task.fewshot_cfg
    for position, row in enumerate(pool):
        try:
            text = task.doc_to_text(row, own.doc_to_text)
            choices: Any = task.doc_to_choice(row, own.doc_to_choice) if own.doc_to_choice else None
            answer = task.doc_to_target(row, own.doc_to_target)
            if task.multiple_input:
                text, choices = choices[text], None
            task.build_qa_turn(q=text, c=choices, a=answer)
        except Exception as error:
            raise task.failed(
                task.label(_source(task), position),
                f"it cannot be rendered as an example ({type(error).__name__}: {first_line(error, 200)})",
            ) from error
