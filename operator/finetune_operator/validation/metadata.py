"""Validation of ``metadata``, the same for every kind.

Source: ``k8s.io/apimachinery/pkg/api/validation/objectmeta.go`` and ``util/validation``.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from .path import Path, child, text
from .problem import CauseType, Problem
from .schema import compile_schema
from .structure import StructureCheck, identical, prune

_STRING = {"type": "string"}
_STRINGS = {"type": "object", "additionalProperties": _STRING}
_TIME = {"type": "string", "format": "date-time"}
_FLAG = {"type": "boolean"}
OBJECT_META = compile_schema({
    "type": "object",
    "properties": {
        "name": _STRING, "generateName": _STRING, "namespace": _STRING, "selfLink": _STRING, "uid": _STRING,
        "resourceVersion": _STRING, "generation": {"type": "integer"}, "creationTimestamp": _TIME, "deletionTimestamp": _TIME,
        "deletionGracePeriodSeconds": {"type": "integer"}, "labels": _STRINGS, "annotations": _STRINGS,
        "finalizers": {"type": "array", "items": _STRING},
        "managedFields": {"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
        "ownerReferences": {"type": "array", "items": {"type": "object", "properties": {
            "apiVersion": _STRING, "kind": _STRING, "name": _STRING, "uid": _STRING, "controller": _FLAG,
            "blockOwnerDeletion": _FLAG,
        }}},
    },
}, "metadata")  # fmt: skip
"""The fields of ``ObjectMeta`` (``meta/v1``) and their types."""

ROOT: Path = (None, "metadata")

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_GENERATED_PREFIX_LIMIT = 63 - 5
_GENERATED_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_ANNOTATIONS_LIMIT = 256 * 1024
_IMMUTABLE = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def prune_metadata(metadata: dict[str, Any], unknown: list[Problem]) -> dict[str, Any]:
    """Return ``metadata`` without unknown fields, which are added to ``unknown``, and without empty fields, which Go omits."""
    pruned: dict[str, Any] = prune(OBJECT_META, metadata, ROOT, unknown)
    return {name: value for name, value in pruned.items() if value is not None and value not in ("", {}, [])}


def check_types(metadata: Any) -> list[Problem]:
    """Return the problems of fields with a wrong type. An API server cannot decode an object with one."""
    structure = StructureCheck()
    structure.check(OBJECT_META, metadata, ROOT)
    return structure.problems


def check_metadata(metadata: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[Problem]:
    """Return the problems of an object's metadata, of a new object or of an update of ``old``.

    A missing namespace is not a problem: the path of the request has it.
    """
    malformed = check_types(metadata)
    if malformed:
        return malformed
    always = [*_of_labels(metadata), *_of_annotations(metadata), *_of_owners(metadata)]
    if old is None:
        return [*_of_names(metadata), *always, *_of_finalizers(metadata)]
    return [*_of_update(metadata, old), *always]


def _invalid(path: Path, value: Any, detail: str) -> Problem:
    return Problem(text(path), CauseType.INVALID, detail, value)


def _of_names(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    prefix = metadata.get("generateName", "")
    if prefix:
        # The server adds five characters, so a trailing dash is fine.
        yield from (_invalid(child(ROOT, "generateName"), prefix, fault) for fault in subdomain_faults(prefix.removesuffix("-")))
    if metadata.get("name"):
        yield from (_invalid(child(ROOT, "name"), metadata["name"], fault) for fault in subdomain_faults(metadata["name"]))
    elif not prefix:
        yield Problem(text(child(ROOT, "name")), CauseType.REQUIRED, "name or generateName is required")
    namespace = metadata.get("namespace", "")
    if namespace:
        yield from (_invalid(child(ROOT, "namespace"), namespace, fault) for fault in label_faults(namespace))
    if metadata.get("generation", 0) < 0:
        yield _invalid(child(ROOT, "generation"), metadata["generation"], "must be greater than or equal to 0")


def _of_update(metadata: Mapping[str, Any], old: Mapping[str, Any]) -> Iterator[Problem]:
    for name in _IMMUTABLE:
        if not identical(metadata.get(name), old.get(name)):
            yield _invalid(child(ROOT, name), metadata.get(name), "field is immutable")
    added = sorted(set(metadata.get("finalizers", ())) - set(old.get("finalizers", ())))
    if old.get("deletionTimestamp") and added:
        yield Problem(
            text(child(ROOT, "finalizers")),
            CauseType.FORBIDDEN,
            f"no new finalizers can be added if the object is being deleted, found new finalizers {added}",
        )


def _of_labels(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    path = child(ROOT, "labels")
    for name, value in metadata.get("labels", {}).items():
        yield from (_invalid(path, name, fault) for fault in qualified_name_faults(name))
        if len(value) > 63 or (value and not re.fullmatch(_QUALIFIED, value)):
            yield _invalid(path, value, "a valid label value has at most 63 letters, digits, '-', '_' or '.', and a letter or"
                                        " digit at both ends")  # fmt: skip


def _of_annotations(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    path, annotations = child(ROOT, "annotations"), metadata.get("annotations", {})
    for name in annotations:
        yield from (_invalid(path, name, fault) for fault in qualified_name_faults(name.lower()))
    if sum(len(name.encode()) + len(value.encode()) for name, value in annotations.items()) > _ANNOTATIONS_LIMIT:
        yield Problem(text(path), CauseType.TOO_LONG, f"may not be more than {_ANNOTATIONS_LIMIT} bytes")


def _of_owners(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    path, controllers = child(ROOT, "ownerReferences"), 0
    for owner in metadata.get("ownerReferences", ()):
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                yield _invalid(child(path, name), "", "must not be empty")  # the server names no index here
        controllers += owner.get("controller", False)
    if controllers > 1:
        yield _invalid(path, metadata["ownerReferences"], "Only one reference can have Controller set to true")


def _of_finalizers(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    path = child(ROOT, "finalizers")
    for name in metadata.get("finalizers", ()):
        yield from (_invalid(path, name, fault) for fault in qualified_name_faults(name))


def generated_name(prefix: str) -> str:
    """Return a name for ``generateName``, as ``k8s.io/apiserver/pkg/storage/names`` makes it."""
    return prefix[:_GENERATED_PREFIX_LIMIT] + "".join(secrets.choice(_GENERATED_LETTERS) for _ in range(5))


def subdomain_faults(name: str) -> Iterator[str]:
    """Yield why ``name`` is not a valid object name (RFC 1123 subdomain); nothing if it is."""
    if len(name) > 253:
        yield "must be no more than 253 bytes"
    if not re.fullmatch(_SUBDOMAIN, name):
        yield (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
            f" end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{_SUBDOMAIN}')"
        )


def label_faults(name: str) -> Iterator[str]:
    """Yield why ``name`` is not a valid namespace name (RFC 1123 label)."""
    if len(name) > 63:
        yield "must be no more than 63 bytes"
    if not re.fullmatch(_LABEL, name):
        yield (
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
            f" an alphanumeric character (e.g. 'my-name', regex used for validation is '{_LABEL}')"
        )


def qualified_name_faults(name: str) -> Iterator[str]:
    """Yield why ``name`` is not a valid qualified name, ``[prefix/]name``, as labels and finalizers have."""
    prefix, slash, base = name.rpartition("/")
    if slash:
        yield from (f"prefix part {fault}" for fault in subdomain_faults(prefix))
    if len(base) > 63:
        yield "name part must be no more than 63 bytes"
    if not re.fullmatch(_QUALIFIED, base):
        yield (
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric"
            f" character (e.g. 'MyName', regex used for validation is '{_QUALIFIED}')"
        )
