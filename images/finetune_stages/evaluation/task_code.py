"""Guard of lm-eval's own code for the case that the platform allows no code of task files.

:func:`.task_rules.require_no_code` and :func:`.metric_names.require_known_metrics` read the definitions before lm-eval does, and name the
file. lm-eval reads the files again. These guards are where it would import a function or load a metric, whatever the file looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from lm_eval.api import registry, task
from lm_eval.tasks import _yaml_loader

from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.sources.task_files import builtin_tasks

from .task_rules import ALLOW

_import_function = _yaml_loader._import_func_in_yml  # noqa: SLF001 - lm-eval has no other place where it imports functions
_get_metric = registry.get_metric


def guard_code(allowed: bool, metrics: Collection[str] = ()) -> None:
    """Set what lm-eval may import and load from now on.

    Args:
        allowed: everything.
        metrics: names of metrics that lm-eval's own tasks load from the hub, in addition to those that it registers.
    """

    def import_function(name: str, folder: Path) -> Any:
        if not Path(folder).resolve().is_relative_to(builtin_tasks().resolve()):
            raise StageError(
                reasons.TASK_INVALID,
                f"evaluation.taskFiles: !function {name} runs code, which is not allowed here; use templates, {ALLOW}",
            )
        return _import_function(name, folder)

    def get_metric(name: str, hf_evaluate_metric: bool = False) -> Callable[..., Any] | None:
        registered = name in registry.metric_registry and not hf_evaluate_metric
        if not (registered or name in metrics):
            raise StageError(
                reasons.TASK_INVALID,
                f"evaluation.taskFiles: metric {name} is not a metric of lm-eval, and code of a metric is not allowed here; use one of"
                f" lm-eval, {ALLOW}",
            )
        return _get_metric(name, hf_evaluate_metric)  # type: ignore[no-any-return]

    _yaml_loader._import_func_in_yml = _import_function if allowed else import_function  # noqa: SLF001
    registry.get_metric = task.get_metric = _get_metric if allowed else get_metric
