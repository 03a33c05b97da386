"""Jinja's sandbox for the templates of tasks: lm-eval renders them without one, so that a task file could run any code."""

from __future__ import annotations

from jinja2 import BaseLoader, StrictUndefined
from jinja2.sandbox import SandboxedEnvironment
from lm_eval import utils


def use_sandbox() -> None:
    """Replace the environment in which lm-eval renders templates by a sandbox with the same options and filters."""
    if isinstance(utils.env, SandboxedEnvironment):
        return
    sandbox = SandboxedEnvironment(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
    sandbox.filters.update(utils.env.filters)
    utils.env = sandbox
