"""``--set path=value``: one field of a run's ``spec``, from the command line."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from . import exitcodes
from .documents import DocumentProblem, read_value
from .errors import CommandError


def apply_assignments(spec: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of ``spec`` with the assignments done, in order.

    A value is YAML: ``training.epochs=3``, ``evaluation.tasks=[arc_easy]``; ``null`` takes the field away. A path may begin
    with ``spec.``; whether it exists is for the CRD to judge.

    Raises:
        CommandError: an assignment has not that form, or leads through a value that is no section.
    """
    changed = copy.deepcopy(dict(spec))
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        keys = path.strip().removeprefix("spec.").split(".")
        if not separator or not all(keys):
            raise CommandError([f"--set {assignment}: expected PATH=VALUE, such as training.epochs=3."], exitcodes.USAGE)
        try:
            value = read_value(text)
        except DocumentProblem as problem:
            raise CommandError([f"--set {assignment}: {problem}"], exitcodes.USAGE) from None
        _set(changed, keys, value, assignment)
    return changed


def _set(spec: dict[str, Any], keys: Sequence[str], value: Any, assignment: str) -> None:
    backend = spec
    for depth, key in enumerate(keys[:-1]):
        backend = backend.setdefault(key, {})
        if not isinstance(backend, dict):
            inner = ".".join(keys[: depth + 1])
            raise CommandError([f"--set {assignment}: spec.{inner} has no fields; set it as a whole."], exitcodes.USAGE)
    if value is None:
        backend.pop(keys[-1], None)
    else:
        backend[keys[-1]] = value
