"""Validation of a custom resource as kube-apiserver does it with ``fieldValidation=Strict``.

Order and effect follow ``apiextensions-apiserver/pkg/registry/customresource``: decoding drops unknown fields and nulls;
validation checks metadata, structure and keyed lists; rules are evaluated only if no error blocks them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_operator.core.paths import Json

from .metadata import check_metadata, check_types, generated_name, prune_metadata
from .path import Path
from .problem import CauseType, Problem
from .rules import RuleSet
from .schema import Node, compile_schema
from .structure import ABSENT, StructureCheck, identical, prune

_STATUS: Path = (None, "status")
_UNCHECKED_RULES = Problem(
    "",
    CauseType.INVALID,
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
    None,
)


class Validator:
    """Validates the objects of the served version of a CustomResourceDefinition with a status subresource.

    Args:
        definition: the definition, ``apiextensions.k8s.io/v1``.

    Raises:
        SchemaError: the definition uses a keyword that is not supported.
    """

    def __init__(self, definition: Mapping[str, Any]) -> None:
        spec = definition["spec"]
        version = next(version for version in spec["versions"] if version["served"])
        self.api_version = f"{spec['group']}/{version['name']}"
        self.kind: str = spec["names"]["kind"]
        self._root = compile_schema(version["schema"]["openAPIV3Schema"])
        self._rules = RuleSet()

    def create(self, obj: Json) -> list[Problem]:
        """Return the problems of a new object; none if the API server would accept it."""
        pruned, unknown = self.prune(obj)
        return unknown + self.validate(_named(without_status(pruned)))

    def update(self, obj: Json, old: Json, *, status: bool = False) -> list[Problem]:
        """Return the problems of an update of ``old`` to ``obj``: of everything but status, or only of ``status``."""
        pruned, unknown = self.prune(obj)
        before, _ = self.prune(old)
        if not status:
            return unknown + self.validate(with_status_of(pruned, before), before)
        malformed = check_types(pruned.get("metadata", {}))
        return unknown + malformed + self.validate(with_status_of(before, pruned), before, status=True)

    def prune(self, obj: Json, old: Json | None = None) -> tuple[Json, list[Problem]]:
        """Return the object as the API server decodes it, and one problem for each dropped unknown field.

        With ``old``, a pruned object that ``obj`` was patched from, parts that both share are not checked again.
        """
        unknown: list[Problem] = []
        pruned: Json = prune(self._root, obj, None, unknown, ABSENT if old is None else old)
        if isinstance(pruned.get("metadata"), dict):
            pruned = {**pruned, "metadata": prune_metadata(pruned["metadata"], unknown)}
        return pruned, unknown

    def validate(self, obj: Json, old: Json | None = None, *, status: bool = False) -> list[Problem]:
        """Return the problems of a pruned object, new or an update of ``old``; with ``status``, an update of status only."""
        problems = self._of_type(obj)
        if problems:
            return problems
        problems = check_metadata(obj.get("metadata") or {}, None if old is None else old.get("metadata") or {})
        structure = StructureCheck()
        if status:
            self._check_status(structure, obj, old or {})
        else:
            structure.check(self._root, obj, None, ABSENT if old is None else old)
        problems += structure.problems + self._of_keyed_lists(obj, old)
        if any(problem.blocks_rules for problem in problems):
            return [*problems, _UNCHECKED_RULES]
        return problems + self._rules.evaluate(self._root, obj, None, ABSENT if old is None else old)

    def _check_status(self, structure: StructureCheck, obj: Json, old: Json) -> None:
        node: Node | None = self._root.properties.get("status")
        if node is not None and "status" in obj:
            structure.check(node, obj["status"], _STATUS, old.get("status", ABSENT))

    def _of_keyed_lists(self, obj: Json, old: Json | None) -> list[Problem]:
        now = StructureCheck()
        now.check_keyed_lists(self._root, obj, None)
        if now.problems and old is not None:
            before = StructureCheck()
            before.check_keyed_lists(self._root, old, None)
            if before.problems:  # an update need not correct old errors
                return []
        return now.problems

    def _of_type(self, obj: Json) -> list[Problem]:
        expected = {"kind": self.kind, "apiVersion": self.api_version}
        return [
            Problem(name, CauseType.INVALID, f"must be {value}", obj.get(name))
            for name, value in expected.items()
            if not identical(obj.get(name), value)
        ]


def _named(obj: Json) -> Json:
    """Return the object with the name that the API server generates before it validates (``rest.BeforeCreate``)."""
    metadata = obj.get("metadata")
    prefix = metadata.get("generateName") if isinstance(metadata, dict) and not metadata.get("name") else None
    if not prefix or not isinstance(prefix, str):
        return obj
    return {**obj, "metadata": {**obj["metadata"], "name": generated_name(prefix)}}


def without_status(obj: Json) -> Json:
    """Return the object as it is created: status is written only through its subresource."""
    return {name: value for name, value in obj.items() if name != "status"}


def with_status_of(obj: Json, other: Json) -> Json:
    """Return ``obj`` with the status of ``other``, or without status if that has none."""
    rest = without_status(obj)
    return {**rest, "status": other["status"]} if "status" in other else rest
