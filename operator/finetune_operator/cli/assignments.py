"""``--set path=value``: one field of a run's ``spec``, from the command line."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from . import exit_status
from .documents import DocumentProblem, read_value
from .errors import CommandError


def apply_assignments(spec: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """Return a copy of ``spec`` with the assignments applied in order.

    A value is YAML: ``training.epochs=3``, ``evaluation.tasks=[arc_easy]``; ``null`` removes the field. A path may begin with
    ``spec.``. The path is not checked against the CRD.

    Raises:
        CommandError: an assignment is malformed, or its path contains a field that is not an object.
    """
    changed = copy.deepcopy(dict(spec))
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        keys = path.strip().removeprefix("spec.").split(".")
        if not separator or not all(keys):
            raise CommandError(
                [f"--set {assignment}: not of the form PATH=VALUE; write, for example, --set training.epochs=3."],
                exit_status.USAGE,
            )
        try:
            value = read_value(text)
        except DocumentProblem as problem:
            raise CommandError([f"--set {assignment}: {problem}"], exit_status.USAGE) from None
        _set(changed, keys, value, assignment)
    return changed


def _set(spec: dict[str, Any], keys: Sequence[str], value: Any, assignment: str) -> None:
    parent = spec
    for depth, key in enumerate(keys[:-1]):
        parent = parent.setdefault(key, {})
        if not isinstance(parent, dict):
            inner = ".".join(keys[: depth + 1])
            raise CommandError([f"--set {assignment}: spec.{inner} is not an object; set the whole field."], exit_status.USAGE)
    if value is None:
        parent.pop(keys[-1], None)
    else:
        parent[keys[-1]] = value
