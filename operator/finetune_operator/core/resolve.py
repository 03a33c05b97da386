"""Resolution of a spec: the effective value of every field, its origin, and the values that were adapted.

A run is resolved once, when a round starts. From then on ``plan`` reads ``status.resolved`` and the mutable fields only, so that an
upgrade of the operator does not change a run in progress.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from finetune_contract import CONTRACT_VERSION
from finetune_contract.reasons import Reason
from finetune_contract.uris import ClaimPath, LocalPath, UriError, UriKind, parse_uri
from finetune_operator.api import reasons
from finetune_operator.api.presets import DEFAULT_ALGORITHM, overlay, preset

from .adaptation import ADAPTATIONS
from .allowed import not_allowed
from .contradictions import Contradiction, contradiction
from .hosts import host_problem, hub_is_allowed
from .images import image_of, images_of_programs
from .naming import STAGE_ACCOUNT
from .origins import PREFIXES, origin_prefix, origins_below
from .paths import Json, assign, leaves, lookup
from .resolved_spec import ResolvedSpec
from .settings import Mode, Settings
from .unsupported import first_unsupported
from .values import InvalidValue, invalid_value, validated

_URIS: dict[str, UriKind] = {"dataset.uri": "dataset", "dataset.evalUri": "dataset", "model.uri": "model"}
SPEC_LIMIT = 24 * 1024
"""Largest spec in bytes of JSON: the spec, its resolved copy and status fit into an object of 64 KiB."""
CONTROL_FIELDS = ("suspend", "rerun", "approval")
"""Fields that control a run in progress. They are read from ``spec`` at any time and are not resolved."""
SMALLEST = {"dataset": {"uri": "org/data"}}
"""The required fields, which make defaults a whole spec that can be validated."""


@dataclass(frozen=True)
class SpecRejection:
    """Why a run cannot start with its spec."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class _Layer:
    """Values from one origin, in the schema of ``spec``."""

    origin: str
    values: Mapping[str, Any]


def resolve(spec: Mapping[str, Any], settings: Settings) -> Json | SpecRejection:
    """Return ``status.resolved`` for a spec under these settings, or why the run cannot start."""
    checked = _reject_early(spec, settings) or _validated_settings(spec, settings)
    if isinstance(checked, SpecRejection):
        return checked
    settings = checked
    spec = {key: value for key, value in spec.items() if key not in CONTROL_FIELDS}
    merged, origins = effective_values(spec, settings)
    adapted = _adapt(merged, origins, settings)
    if isinstance(adapted, SpecRejection):
        return adapted
    if lookup(merged, "registry.address") and merged["registry"]["kind"] == "MLflow" and settings.volume_uri.startswith("file:"):
        return SpecRejection(
            reasons.NOT_POSSIBLE_HERE,
            f"{origin_prefix(origins, 'registry.address')}registry.address: an MLflow server cannot read a model on this machine; remove registry.address to"
            " register in the store of the workspace.",
        )
    denied = not_allowed(merged, origins, settings.allowed)
    if denied:
        return SpecRejection(reasons.NOT_ALLOWED, f"{denied.where}{denied.field}: {denied.words}.")
    found = _contradiction(merged, origins) or host_problem(ResolvedSpec(merged), settings)
    if found:
        return SpecRejection(reasons.INVALID_SPEC, f"{origin_prefix(origins, found.field)}{found.field}: {found.words}.")
    return {
        "spec": merged,
        "origins": _grouped(origins, merged),
        "adapted": adapted,
        "operatorVersion": settings.operator_version,
        "contractVersion": CONTRACT_VERSION,
        "images": images_of_programs(settings.images, merged),
        "entryDigest": settings.bundle_digest,
        "environment": {**settings.environment, **({} if hub_is_allowed(settings) else {"HF_HUB_OFFLINE": "1"})},
        **(
            {"allowedHosts": {use: list(hosts) for use, hosts in settings.allowed_hosts.items()}}
            if settings.allowed_hosts
            else {}
        ),
        **({"privateAddresses": settings.private_addresses} if settings.private_addresses else {}),
        **({"downloadLimits": dict(settings.download_limits)} if settings.download_limits else {}),
        **({"engineCheck": True} if settings.engine_check else {}),
        **({} if settings.isolation == "none" else {"isolation": settings.isolation}),
        **({} if settings.allowed.task_code else {"taskCode": False}),
        **({"podLabels": dict(settings.pod_labels)} if settings.pod_labels else {}),
        **({"podAnnotations": dict(settings.pod_annotations)} if settings.pod_annotations else {}),
        "volumeUri": settings.volume_uri,
        **({} if settings.fs_group is None else {"fsGroup": settings.fs_group}),
    }


def effective_values(spec: Mapping[str, Any], settings: Settings) -> tuple[Json, dict[str, str]]:
    """Return every value of a run before adaptation, and the origin of each field."""
    merged, origins = _merge(_layers(spec, settings))
    _derive(merged, origins, settings)
    return merged, origins


def _reject_early(spec: Mapping[str, Any], settings: Settings) -> SpecRejection | None:
    size = len(json.dumps(spec, separators=(",", ":")).encode())
    if size > SPEC_LIMIT:
        return SpecRejection(
            reasons.SPEC_TOO_LARGE, f"spec: {size} bytes of JSON are more than {SPEC_LIMIT}; move long texts into a ConfigMap."
        )
    if settings.problem:
        return SpecRejection(reasons.INVALID_SPEC, settings.problem)
    return None


def _validated_settings(spec: Mapping[str, Any], settings: Settings) -> Settings | SpecRejection:
    """Return the settings with the defaults as their fields hold them; or why the run, or one of the defaults, is rejected."""
    rejection = _reject_values("run", spec, settings.mode)
    namespace = rejection or validated_defaults("namespace", settings.namespace_defaults, settings.mode)
    if isinstance(namespace, SpecRejection):
        return namespace
    operator = validated_defaults("operator", settings.operator_defaults, settings.mode)
    if isinstance(operator, SpecRejection):
        return operator
    return replace(settings, namespace_defaults=namespace, operator_defaults=operator)


def validated_defaults(origin: str, values: Mapping[str, Any], mode: Mode) -> Json | SpecRejection:
    """Return defaults as their fields hold them: no API server has validated or converted them.

    Args:
        origin: ``namespace`` or ``operator``.
        values: the defaults in the schema of ``spec``.
        mode: where runs run.
    """
    rejection = _reject_control_fields(PREFIXES[origin], values) or _reject_values(origin, values, mode)
    if rejection:
        return rejection
    found = validated(overlay(SMALLEST, values))
    assert not isinstance(found, InvalidValue), "these values were valid"  # for the type checker
    if lookup(values, "dataset.uri") is None:
        del found["dataset"]["uri"]
    return _reject_unsupported(PREFIXES[origin], found) or found  # what converts to an unsupported value


def _reject_control_fields(where: str, values: Mapping[str, Any]) -> SpecRejection | None:
    for field in CONTROL_FIELDS:
        if values.get(field) is not None:
            message = f"{where}{field}: has no effect as a default, because it controls a single run; remove it."
            return SpecRejection(reasons.INVALID_SPEC, message)
    return None


def _reject_values(origin: str, values: Mapping[str, Any], mode: Mode) -> SpecRejection | None:
    where = PREFIXES[origin]
    return _reject_unsupported(where, values) or _reject_uri(where, values, mode) or _reject_invalid(where, values)


def _reject_invalid(where: str, values: Mapping[str, Any]) -> SpecRejection | None:
    invalid = invalid_value(overlay(SMALLEST, values))
    return SpecRejection(reasons.INVALID_SPEC, f"{where}{invalid.path}: {invalid.problem}.") if invalid else None


def _reject_unsupported(where: str, values: Mapping[str, Any]) -> SpecRejection | None:
    found = first_unsupported(values)
    if found is None:
        return None
    return SpecRejection(reasons.UNSUPPORTED, f"{where}{found.path}: this release does not support {found}; remove it.")


def _reject_uri(where: str, values: Mapping[str, Any], mode: Mode) -> SpecRejection | None:
    """Return why a URI cannot be read: it is malformed, or a local path in a cluster."""
    for path, kind in _URIS.items():
        uri = lookup(values, path)
        if not isinstance(uri, str):
            continue
        try:
            parsed = parse_uri(uri, kind)
        except UriError as error:
            return SpecRejection(reasons.INVALID_SPEC, f"{where}{path}: {error}.")
        if isinstance(parsed, ClaimPath) and mode == "local":
            message = f"{where}{path}: {uri} is on a claim of a cluster, which local mode does not mount; use a local path."
            return SpecRejection(reasons.NOT_POSSIBLE_HERE, message)
        if isinstance(parsed, LocalPath) and mode == "cluster":
            others = (
                "a hub id, hf://, oci://, s3:// or pvc://" if kind == "model" else "a hub id, hf://, https://, s3:// or pvc://"
            )
            message = f"{where}{path}: {uri} is a path of one machine, which no pod can read; use {others}."
            return SpecRejection(reasons.LOCAL_PATH_IN_CLUSTER, message)
    return None


def _layers(spec: Mapping[str, Any], settings: Settings) -> tuple[_Layer, ...]:
    above = [
        _Layer("operator", settings.operator_defaults),
        _Layer("namespace", settings.namespace_defaults),
        _Layer("run", spec),
    ]
    algorithm = DEFAULT_ALGORITHM
    for layer in above:
        algorithm = lookup(layer.values, "training.algorithm") or algorithm
    return (_Layer(f"preset {algorithm}", preset(algorithm)), *above)


def _merge(layers: tuple[_Layer, ...]) -> tuple[Json, dict[str, str]]:
    merged: Json = {}
    origins: dict[str, str] = {}
    for layer in layers:
        values = dict(layer.values)
        variables = lookup(values, "training.env")
        if variables:
            values = overlay(values, {"training": {"env": _merge_variables(lookup(merged, "training.env") or [], variables)}})
        if lookup(values, "model.uri") not in (None, lookup(merged, "model.uri")):
            _remove_revision(merged, origins)
        merged = overlay(merged, values)
        origins.update(dict.fromkeys((path for path, _ in leaves(layer.values)), layer.origin))
    for key in CONTROL_FIELDS:
        merged.pop(key, None)
    _choose_storage(merged, layers)
    return merged, origins


def _remove_revision(merged: Json, origins: dict[str, str]) -> None:
    """Remove the revision of a lower layer, which belongs to another model."""
    merged.get("model", {}).pop("revision", None)
    origins.pop("model.revision", None)


def _choose_storage(merged: Json, layers: tuple[_Layer, ...]) -> None:
    """Choose an existing claim or a new one: the topmost layer with a storage section decides."""
    storage = merged["storage"]
    decider = next(layer for layer in reversed(layers) if layer.values.get("storage"))
    if lookup(decider.values, "storage.claimName"):
        merged["storage"] = {"claimName": storage["claimName"]}
    else:
        storage.pop("claimName", None)


def _merge_variables(below: list[Json], above: list[Json]) -> list[Json]:
    """Return environment variables merged by name."""
    return list({entry["name"]: entry for entry in (*below, *above)}.values())


def _derive(merged: Json, origins: dict[str, str], settings: Settings) -> None:
    """Set the defaults that follow from other values."""

    def default(path: str, value: Any, over: tuple[str, ...] = ()) -> None:
        origin = origins.get(path)
        if lookup(merged, path) is None or (origin is not None and origin.startswith(over)):
            assign(merged, path, value)
            origins[path] = "derived"

    training_image = image_of("training", settings.images, merged)
    if training_image and lookup(merged, "training.image") is None:
        assign(merged, "training.image", training_image)
        origins["training.image"] = "operator"
    if lookup(merged, "dataset.evalUri"):
        default("dataset.trainSplit", 1.0, over=origins_below(origins, "dataset.evalUri"))
    default("dataset.badRows.share", 0.1)
    if settings.mode == "cluster":
        default("serviceAccountName", STAGE_ACCOUNT)
    if lookup(merged, "registry.address"):
        default("registry.kind", "ModelRegistry")
        if lookup(merged, "registry.address").startswith("https://"):
            default("registry.port", 443, over=("preset",))
    elif settings.local_registry:
        default("registry.kind", "MLflow")


def _adapt(merged: Json, origins: dict[str, str], settings: Settings) -> list[Json] | SpecRejection:
    adapted = []
    for rule in ADAPTATIONS:
        value = lookup(merged, rule.path)
        if value is None or not rule.impossible(value, settings, merged):
            continue
        action: str = rule.explicit if _is_explicit(rule.path, origins) else "replace"
        if action in ("reject in the run", "keep in the run"):
            action = action.partition(" ")[0] if _is_of_run(rule.path, origins) else "replace"
        if action == "reject":
            message = f"{origin_prefix(origins, rule.path)}{rule.path}: {_shown(value)} is not possible here, because {rule.reason}; remove it."
            return SpecRejection(reasons.NOT_POSSIBLE_HERE, message)
        if action == "replace":
            _replace(merged, rule.path, rule.instead)
            instead = "not set" if rule.instead is None else _shown(rule.instead)
            adapted.append({"field": rule.path, "preset": _shown(value), "value": instead, "reason": rule.reason})
    return adapted


def _is_explicit(path: str, origins: dict[str, str]) -> bool:
    """Return whether a person set the value, or any part of it: in the run, the namespace or the operator's configuration."""
    return any(
        origin in ("run", "namespace", "operator") for key, origin in origins.items() if key == path or key.startswith(f"{path}.")
    )


def _is_of_run(path: str, origins: dict[str, str]) -> bool:
    return any(origin == "run" for key, origin in origins.items() if f"{key}.".startswith(f"{path}."))


def _grouped(origins: Mapping[str, str], merged: Json) -> dict[str, list[str]]:
    """Return the fields by the origin of their values, without those that the run itself sets."""
    groups: dict[str, list[str]] = {}
    for path, origin in sorted(origins.items()):
        if origin != "run" and lookup(merged, path) is not None:
            groups.setdefault(origin, []).append(path)
    return groups


def _replace(merged: Json, path: str, value: Any) -> None:
    if value is not None:
        assign(merged, path, value)
        return
    parent, _, last = path.rpartition(".")
    lookup(merged, parent).pop(last)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _contradiction(merged: Json, origins: Mapping[str, str]) -> Contradiction | None:
    """Return what is wrong with effective values, each of which is valid in its own layer."""
    invalid = invalid_value(merged)
    return Contradiction(invalid.path, invalid.problem) if invalid else contradiction(ResolvedSpec(merged), origins)
