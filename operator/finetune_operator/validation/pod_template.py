"""Validation of a Job's pod template: the fields that a FineTuneRun can set.

Source: ``k8s.io/kubernetes/pkg/apis/core/validation/validation.go``. Other fields are not validated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from finetune_operator.api.quantity import parse_quantity

from .metadata import check_metadata
from .problem import CauseType, Problem

Json = Mapping[str, Any]
Problems = Iterator[Problem]

_TEMPLATE = "spec.template"
_SPEC = f"{_TEMPLATE}.spec"
_REQUIRED, _PREFERRED = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
_JOB_LABELS = ("job-name", "batch.kubernetes.io/job-name")


def check_job(job: Json) -> list[Problem]:
    """Return the problems of the pods of a Job."""
    template = (job.get("spec") or {}).get("template") or {}
    spec, metadata = template.get("spec") or {}, template.get("metadata") or {}
    return [
        *_labels(metadata.get("labels"), f"{_TEMPLATE}.labels"),
        *_job_labels(metadata.get("labels") or {}, str(job["metadata"].get("name", ""))),
        *_renamed({"annotations": metadata.get("annotations") or {}}, f"{_TEMPLATE}.annotations"),
        *_labels(spec.get("nodeSelector"), f"{_SPEC}.nodeSelector"),
        *_each(spec.get("tolerations"), f"{_SPEC}.tolerations", _toleration),
        *_affinity(spec.get("affinity") or {}, f"{_SPEC}.affinity"),
        *_volumes(spec.get("volumes") or ()),
        *_each(spec.get("containers"), f"{_SPEC}.containers", _resources),
        *(problem for container in spec.get("containers") or () for problem in _mounts(container, spec.get("volumes") or ())),
    ]


def _each(items: Sequence[Json] | None, path: str, check: Callable[[Json, str], Problems]) -> Problems:
    for number, item in enumerate(items or ()):
        yield from check(item, f"{path}[{number}]")


def _renamed(metadata: dict[str, Any], path: str) -> Problems:
    """Yield the problems of labels or annotations with their path in a pod."""
    yield from (replace(problem, field=path) for problem in check_metadata({"name": "a", **metadata}))


def _labels(labels: Json | None, path: str) -> Problems:
    yield from _renamed({"labels": labels or {}}, path)


def _job_labels(labels: Json, name: str) -> Problems:
    for key in _JOB_LABELS:
        if labels.get(key, name) != name:
            yield Problem(f"{_TEMPLATE}.metadata.labels", CauseType.INVALID, f"must be '{name}'", {key: labels[key]})


def _toleration(toleration: Json, path: str) -> Problems:
    operator, effect = toleration.get("operator", "Equal"), toleration.get("effect", "")
    if not toleration.get("key") and operator != "Exists":
        detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        yield Problem(f"{path}.operator", CauseType.INVALID, detail, operator)
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        yield Problem(f"{path}.effect", CauseType.INVALID, "effect must be 'NoExecute' when `tolerationSeconds` is set", effect)
    if operator == "Exists" and toleration.get("value"):
        yield Problem(
            f"{path}.operator", CauseType.INVALID, "value must be empty when `operator` is 'Exists'", toleration["value"]
        )


def _affinity(affinity: Json, path: str) -> Problems:
    nodes, at = affinity.get("nodeAffinity") or {}, f"{path}.nodeAffinity"
    terms = (nodes.get(_REQUIRED) or {}).get("nodeSelectorTerms")
    yield from _each(terms, f"{at}.{_REQUIRED}.nodeSelectorTerms", _node_term)
    for number, one in enumerate(nodes.get(_PREFERRED) or ()):
        yield from _node_term(one["preference"], f"{at}.{_PREFERRED}[{number}].preference")
    for name in ("podAffinity", "podAntiAffinity"):
        pods, at = affinity.get(name) or {}, f"{path}.{name}"
        yield from _each(pods.get(_REQUIRED), f"{at}.{_REQUIRED}", _pod_term)
        for number, one in enumerate(pods.get(_PREFERRED) or ()):
            yield from _pod_term(one["podAffinityTerm"], f"{at}.{_PREFERRED}[{number}].podAffinityTerm")


def _node_term(term: Json, path: str) -> Problems:
    yield from _each(term.get("matchExpressions"), f"{path}.matchExpressions", _requirement)
    for number, one in enumerate(term.get("matchFields") or ()):
        at = f"{path}.matchFields[{number}]"
        if one["operator"] not in ("In", "NotIn"):
            yield Problem(f"{at}.operator", CauseType.INVALID, "not a valid selector operator", one["operator"])
        elif len(one.get("values") or ()) != 1:
            detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            yield Problem(f"{at}.values", CauseType.REQUIRED, detail)
        if one["key"] != "metadata.name":
            yield Problem(f"{at}.key", CauseType.INVALID, "not a valid field selector key", one["key"])


def _pod_term(term: Json, path: str) -> Problems:
    selector = term.get("labelSelector") or {}
    yield from _labels(selector.get("matchLabels"), f"{path}.labelSelector.matchLabels")
    yield from _each(selector.get("matchExpressions"), f"{path}.labelSelector.matchExpressions", _requirement)


def _requirement(requirement: Json, path: str) -> Problems:
    operator, values = requirement["operator"], requirement.get("values") or ()
    if operator in ("In", "NotIn") and not values:
        yield Problem(f"{path}.values", CauseType.REQUIRED, "must be specified when `operator` is 'In' or 'NotIn'")
    if operator in ("Exists", "DoesNotExist") and values:
        detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        yield Problem(f"{path}.values", CauseType.FORBIDDEN, detail)
    if operator in ("Gt", "Lt") and len(values) != 1:
        yield Problem(f"{path}.values", CauseType.REQUIRED, "must be specified single value when `operator` is 'Lt' or 'Gt'")
    yield from _labels({requirement["key"]: ""}, f"{path}.key")


def _resources(container: Json, path: str) -> Problems:
    for group, amounts in (container.get("resources") or {}).items():
        for name, amount in amounts.items():
            if _below_zero(amount):
                at = f"{path}.resources.{group}[{name}]"
                yield Problem(at, CauseType.INVALID, "must be greater than or equal to 0", str(amount))


def _below_zero(amount: Any) -> bool:
    try:
        return parse_quantity(str(amount)) < 0
    except ValueError:  # the schema of the run's field validates the format
        return False


def _volumes(volumes: Sequence[Json]) -> Problems:
    seen = set[str]()
    for number, volume in enumerate(volumes):
        if volume["name"] in seen:
            yield Problem(f"{_SPEC}.volumes[{number}].name", CauseType.DUPLICATE, "", volume["name"])
        seen.add(volume["name"])
        limit = (volume.get("emptyDir") or {}).get("sizeLimit")
        if limit is not None and _below_zero(limit):
            detail = "SizeLimit field must be a valid resource quantity"
            yield Problem(f"{_SPEC}.volumes[{number}].emptyDir.sizeLimit", CauseType.FORBIDDEN, detail)


def _mounts(container: Json, volumes: Sequence[Json]) -> Problems:
    """Yield the problems of the mounts of the first container: Jobs of this operator have one."""
    names, paths, at = {volume["name"] for volume in volumes}, set[str](), f"{_SPEC}.containers[0].volumeMounts"
    for number, mount in enumerate(container.get("volumeMounts") or ()):
        if mount["name"] not in names:
            yield Problem(f"{at}[{number}].name", CauseType.NOT_FOUND, "", mount["name"])
        if mount["mountPath"] in paths:
            yield Problem(f"{at}[{number}].mountPath", CauseType.INVALID, "must be unique", mount["mountPath"])
        paths.add(mount["mountPath"])
        sub_path = mount.get("subPath", "")  # the API server omits the index of the entry
        if sub_path.startswith("/"):
            yield Problem(f"{at}.subPath", CauseType.INVALID, "must be a relative path", sub_path)
        if ".." in sub_path.split("/"):
            yield Problem(f"{at}.subPath", CauseType.INVALID, "must not contain '..'", sub_path)
