"""Jinja's sandbox for the templates of tasks: lm-eval renders them without one, so that a task file could run any code, or never end."""

from __future__ import annotations

from typing import Any

from jinja2 import BaseLoader, StrictUndefined, Template
from jinja2.sandbox import SandboxedEnvironment
from lm_eval import utils

from finetune_stages.sdk.bounded import SECONDS, bounded, bounded_text


class _Template(Template):
    """Template whose rendering has limits."""

    def render(self, *values: Any, **named: Any) -> str:
        return bounded_text(lambda: Template.render(self, *values, **named))


class _Sandbox(SandboxedEnvironment):
    """Sandbox whose templates have limits, also for the constant expressions that the compiler evaluates."""

    template_class = _Template

    def compile(self, *arguments: Any, **options: Any) -> Any:
        return bounded(SECONDS, lambda: SandboxedEnvironment.compile(self, *arguments, **options))


def use_sandbox() -> None:
    """Replace the environment in which lm-eval renders templates by a sandbox with the same options and filters."""
    if isinstance(utils.env, _Sandbox):
        return
    sandbox = _Sandbox(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
    sandbox.filters.update(utils.env.filters)
    utils.env = sandbox
