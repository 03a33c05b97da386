"""What runs may do here: limits of the platform, from the operator's configuration, each with its reason and remedy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from finetune_contract.uris import ClaimPath, UriKind, parse_uri

from .image_names import is_below
from .naming import STAGE_ACCOUNT
from .origins import PREFIXES
from .paths import Json, lookup
from .settings import Allowed

_OF_RUNS = ("run", "namespace")
"""Origins of values that the limits apply to: the administrator of the operator writes the others."""


@dataclass(frozen=True)
class NotAllowed:
    """A value that runs may not have here: the prefix of its origin, the field, and what is wrong and what to do."""

    where: str
    field: str
    words: str


@dataclass(frozen=True)
class _Limit:
    """A limit.

    Attributes:
        field: the field of the run.
        key: the key below ``allow`` in the operator's configuration.
        reason: why the platform decides about it.
        denied: the values that are not allowed.
    """

    field: str
    key: str
    reason: str
    denied: Callable[[Any, Allowed], Iterator[Any]]


def not_allowed(merged: Json, origins: Mapping[str, str], allowed: Allowed) -> NotAllowed | None:
    """Return the first value of the run or of its namespace that is not allowed, ``None`` if there is none."""
    for limit in _LIMITS:
        value = lookup(merged, limit.field)
        origin = next((one for one in _OF_RUNS if one in _origins(origins, limit.field)), None)
        if value is None or origin is None:
            continue
        for one in limit.denied(value, allowed):
            shown = str(one).lower() if isinstance(one, bool) else one
            words = f"{shown} is not allowed here, because {limit.reason}; remove it, or ask an administrator to set allow.{limit.key} in the operator's configuration"
            return NotAllowed(PREFIXES[origin], limit.field, words)
    return None


def _origins(origins: Mapping[str, str], field: str) -> set[str]:
    return {origin for path, origin in origins.items() if path == field or path.startswith((f"{field}.", f"{field}["))}


def _outside(values: Iterator[str], allowed: Collection[str] | None) -> Iterator[str]:
    return iter(()) if allowed is None else (value for value in values if value not in allowed)


def _remote_code(value: bool, allowed: Allowed) -> Iterator[bool]:
    if value and not allowed.remote_code:
        yield value


def _image(value: str, allowed: Allowed) -> Iterator[str]:
    beginnings = allowed.training_images
    if beginnings is not None and not any(is_below(value, beginning) for beginning in beginnings):
        yield value


def _account(value: str, allowed: Allowed) -> Iterator[str]:
    accounts = allowed.service_accounts
    return _outside(iter([value]), None if accounts is None else (*accounts, STAGE_ACCOUNT))


def _claim(value: str, allowed: Allowed) -> Iterator[str]:
    return _outside(iter([value]), allowed.claims)


def _claim_of_uri(value: str, allowed: Allowed, kind: UriKind = "dataset") -> Iterator[str]:
    parsed = parse_uri(value, kind)
    return _outside(iter([parsed.claim] if isinstance(parsed, ClaimPath) else []), allowed.claims)


def _claims_of_volumes(value: list[Json], allowed: Allowed) -> Iterator[str]:
    claims = (lookup(volume, "persistentVolumeClaim.claimName") for volume in value)
    return _outside((claim for claim in claims if claim), allowed.claims)


_OF_OTHERS = "the claim may have data of others"
_LIMITS = (
    _Limit(
        "model.trustRemoteCode", "remoteCode", "code of the model would run in the pods of all stages and could change its scores",
        _remote_code,
    ),
    _Limit("training.image", "trainingImages", "pods of training run only images that the platform trusts", _image),
    _Limit("serviceAccountName", "serviceAccounts", "the pods of the run would get the rights of that account", _account),
    _Limit("storage.claimName", "claims", _OF_OTHERS, _claim),
    _Limit("dataset.uri", "claims", _OF_OTHERS, _claim_of_uri),
    _Limit("dataset.evalUri", "claims", _OF_OTHERS, _claim_of_uri),
    _Limit("model.uri", "claims", _OF_OTHERS, partial(_claim_of_uri, kind="model")),
    _Limit("training.volumes", "claims", _OF_OTHERS, _claims_of_volumes),
)  # fmt: skip
