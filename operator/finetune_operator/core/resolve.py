"""From what a user wrote to what will be done: every value, where it came from, and what was adapted.

Done once, when a run starts; from then on ``plan`` reads ``status.resolved`` and the mutable fields only, so that an upgrade of
the operator in mid-run changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_contract import CONTRACT_VERSION
from finetune_contract.reasons import Reason
from finetune_contract.uris import LocalPath, UriError, UriKind, parse_uri
from finetune_operator.api import reasons
from finetune_operator.api.presets import DEFAULT_ALGORITHM, overlay, preset

from .adaptation import ADAPTATIONS
from .contradictions import Contradiction, contradiction
from .naming import STAGE_ACCOUNT
from .origins import PREFIXES, origin_prefix
from .paths import Json, assign, leaves, lookup
from .settings import Settings
from .unsupported import first_unsupported
from .values import invalid_value

_URIS: dict[str, UriKind] = {"dataset.uri": "dataset", "dataset.evalUri": "dataset", "model.uri": "model"}
SPEC_LIMIT = 24 * 1024
"""Bytes of ``spec`` as JSON: twice that, and status, fit into the 64 KiB that an object may have."""
RESERVED_VARIABLES = ("PET_", "FINETUNE_")
STEERING = ("suspend", "rerun", "approval")
"""Fields that steer a run on its way; they are read from ``spec`` at any time and are no part of what is resolved."""
_SMALLEST = {"dataset": {"uri": "org/data"}}
"""What completes the defaults, so that they can be validated as a run is."""


@dataclass(frozen=True)
class Refusal:
    """The run cannot start as it is written."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class _Layer:
    """Values of one origin, in the shape of ``spec``."""

    origin: str
    values: Mapping[str, Any]


def resolve(spec: Mapping[str, Any], settings: Settings) -> Json | Refusal:
    """The document of ``status.resolved`` for ``spec`` in the place that ``settings`` describe, or why there is none."""
    rejection = _refuse_early(spec, settings) or _refuse_values(spec, settings)
    if rejection:
        return rejection
    spec = {key: value for key, value in spec.items() if key not in STEERING}
    merged, origins = effective_values(spec, settings)
    adapted = _adapt(merged, origins, settings)
    if isinstance(adapted, Refusal):
        return adapted
    if lookup(merged, "registry.address") and merged["registry"]["kind"] == "MLflow" and settings.volume_uri.startswith("file:"):
        return Refusal(
            reasons.NOT_POSSIBLE_HERE,
            f"{origin_prefix(origins, 'registry.address')}registry.address: an MLflow server takes no model that lies on one machine only; leave address out to register in"
            " the workspace's own store.",
        )
    against = _contradiction(merged, origins)
    if against:
        return Refusal(reasons.INVALID_SPEC, f"{origin_prefix(origins, against.field)}{against.field}: {against.words}.")
    return {
        "spec": merged,
        "origins": _grouped(origins, merged),
        "adapted": adapted,
        "operatorVersion": settings.operator_version,
        "contractVersion": CONTRACT_VERSION,
        "images": dict(settings.images),
        "entryDigest": settings.entry_digest,
        "environment": dict(settings.environment),
        **({"podLabels": dict(settings.pod_labels)} if settings.pod_labels else {}),
        **({"podAnnotations": dict(settings.pod_annotations)} if settings.pod_annotations else {}),
        "volumeUri": settings.volume_uri,
        **({} if settings.fs_group is None else {"fsGroup": settings.fs_group}),
    }


def effective_values(spec: Mapping[str, Any], settings: Settings) -> tuple[Json, dict[str, str]]:
    """Every value of a run before anything is adapted to a place, and where each field has its value from."""
    merged, origins = _merge(_layers(spec, settings))
    _derive(merged, origins, settings)
    return merged, origins


def _refuse_early(spec: Mapping[str, Any], settings: Settings) -> Refusal | None:
    size = len(json.dumps(spec, separators=(",", ":")).encode())
    if size > SPEC_LIMIT:
        return Refusal(reasons.SPEC_TOO_LARGE, f"spec has {size} bytes as JSON; at most {SPEC_LIMIT} are allowed.")
    if settings.problem:
        return Refusal(reasons.INVALID_SPEC, settings.problem)
    return None


def _refuse_values(spec: Mapping[str, Any], settings: Settings) -> Refusal | None:
    """What nobody may ask for: neither the run nor the defaults, which no API server has judged."""
    for origin, values in (
        ("run", spec), ("namespace", settings.namespace_defaults), ("operator", settings.operator_defaults),
    ):  # fmt: skip
        where = PREFIXES[origin]
        unsupported = first_unsupported(values)
        if unsupported:
            message = f"{where}{unsupported.path}: this release does not act on {unsupported.values} yet; remove it."
            return Refusal(reasons.UNSUPPORTED, message)
        against = _uri_rejection(values, where, settings)
        if against:
            return against
        for variable in lookup(values, "training.env") or ():
            if not isinstance(variable, Mapping) or "name" not in variable:
                return Refusal(reasons.INVALID_SPEC, f"{where}training.env: expected a list of entries with name and value.")
            if str(variable["name"]).startswith(RESERVED_VARIABLES):
                message = f"{where}training.env: {variable['name']} is set by the operator; remove it."
                return Refusal(reasons.INVALID_SPEC, message)
        invalid = invalid_value(overlay(_SMALLEST, values))
        if invalid:
            return Refusal(reasons.INVALID_SPEC, f"{where}{invalid[0]}: {invalid[1]}.")
    return None


def _uri_rejection(values: Mapping[str, Any], where: str, settings: Settings) -> Refusal | None:
    """Return why a URI cannot be read: it is malformed, or a local path in a cluster."""
    for path, kind in _URIS.items():
        uri = lookup(values, path)
        if not isinstance(uri, str):
            continue
        try:
            parsed = parse_uri(uri, kind)
        except UriError as error:
            return Refusal(reasons.INVALID_SPEC, f"{where}{path}: {error}.")
        if isinstance(parsed, LocalPath) and settings.mode == "cluster":
            others = "a hub id or hf://" if kind == "model" else "a hub id, hf:// or https://"
            return Refusal(reasons.LOCAL_PATH_IN_CLUSTER, f"{where}{path}: {uri} is a path of one machine; use {others}.")
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
        merged = overlay(merged, values)
        origins.update(dict.fromkeys((path for path, _ in leaves(layer.values)), layer.origin))
    for key in STEERING:
        merged.pop(key, None)
    _choose_storage(merged, layers)
    return merged, origins


def _choose_storage(merged: Json, layers: tuple[_Layer, ...]) -> None:
    """An existing claim or a new one: the topmost layer that speaks of storage decides."""
    storage = merged["storage"]
    decider = next(layer for layer in reversed(layers) if layer.values.get("storage"))
    if lookup(decider.values, "storage.claimName"):
        merged["storage"] = {"claimName": storage["claimName"]}
    else:
        storage.pop("claimName", None)


def _merge_variables(below: list[Json], above: list[Json]) -> list[Json]:
    """Environment variables merge by name."""
    return list({entry["name"]: entry for entry in (*below, *above)}.values())


def _derive(merged: Json, origins: dict[str, str], settings: Settings) -> None:
    """Defaults that follow from other values."""

    def default(path: str, value: Any, over: tuple[str, ...] = ()) -> None:
        origin = origins.get(path)
        if lookup(merged, path) is None or (origin is not None and origin.startswith(over)):
            assign(merged, path, value)
            origins[path] = "derived"

    if lookup(merged, "dataset.evalUri"):
        default("dataset.trainSplit", 1.0, over=("preset",))
    default("dataset.badRows.share", 0.1)
    if settings.mode == "cluster":
        default("serviceAccountName", STAGE_ACCOUNT)
    if lookup(merged, "registry.address"):
        default("registry.kind", "ModelRegistry")
        if lookup(merged, "registry.address").startswith("https://"):
            default("registry.port", 443, over=("preset",))
    elif settings.local_registry:
        default("registry.kind", "MLflow")


def _adapt(merged: Json, origins: dict[str, str], settings: Settings) -> list[Json] | Refusal:
    adapted = []
    for rule in ADAPTATIONS:
        value = lookup(merged, rule.path)
        if value is None or not rule.impossible(value, settings, merged):
            continue
        written = rule.written if _written_by(rule.path, origins) else "replace"
        if written == "refuse":
            message = f"{origin_prefix(origins, rule.path)}{rule.path}: {_shown(value)} is not possible here: {rule.reason}."
            return Refusal(reasons.NOT_POSSIBLE_HERE, message)
        if written == "replace":
            _replace(merged, rule.path, rule.instead)
            instead = "not set" if rule.instead is None else _shown(rule.instead)
            adapted.append({"field": rule.path, "preset": _shown(value), "value": instead, "reason": rule.reason})
    return adapted


def _written_by(path: str, origins: dict[str, str]) -> bool:
    """Whether a person wrote the value, or any part of it: in the run, the namespace or the operator's configuration."""
    return any(
        origin in ("run", "namespace", "operator") for key, origin in origins.items() if key == path or key.startswith(f"{path}.")
    )


def _grouped(origins: Mapping[str, str], merged: Json) -> dict[str, list[str]]:
    """Which fields have their value from where, for all that the run does not state itself."""
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
    """Return what is wrong with values that are valid where they are written, once they come together."""
    invalid = invalid_value(merged)
    return Contradiction(*invalid) if invalid else contradiction(merged, origins)
