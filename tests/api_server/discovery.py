"""The discovery documents below ``/api`` and ``/apis``."""

from __future__ import annotations

from typing import Any

from finetune_operator.api.crd import crd
from finetune_operator.api.kinds import FINETUNERUN, KINDS, POD, Kind
from finetune_operator.local.store.objects import WITH_STATUS
from finetune_operator.loop.cluster import Object

VERSION = {"major": "1", "minor": "34", "gitVersion": "v1.34.0+finetune.embedded", "platform": "embedded"}
"""The release of Kubernetes whose behavior the server implements."""

_VERBS = ["create", "delete", "get", "list", "patch", "watch"]
_SHORT_NAMES = {"pods": ["po"], "persistentvolumeclaims": ["pvc"], "configmaps": ["cm"], "events": ["ev"]}


def core_versions() -> Object:
    """``/api``."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def groups() -> Object:
    """``/apis``."""
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [group(name) for name in sorted({kind.group for kind in KINDS} - {""})],
    }


def group(name: str) -> Object:
    """``/apis/<group>``."""
    versions = sorted({kind.version for kind in KINDS if kind.group == name})
    served = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": served, "preferredVersion": served[-1]}


def resources(api_version: str) -> Object:
    """``/api/v1`` and ``/apis/<group>/<version>``."""
    entries = [entry for kind in KINDS if kind.api_version == api_version for entry in _entries(kind)]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": entries}


def _entries(kind: Kind) -> list[dict[str, Any]]:
    entry: dict[str, Any] = {
        "name": kind.plural, "singularName": kind.name.lower(), "namespaced": kind.namespaced, "kind": kind.name, "verbs": _VERBS,
    }  # fmt: skip
    if kind == FINETUNERUN:
        names = crd()["spec"]["names"]
        entry |= {"shortNames": names["shortNames"], "categories": names["categories"]}
    elif kind.plural in _SHORT_NAMES:
        entry["shortNames"] = _SHORT_NAMES[kind.plural]
    entries = [entry]
    below = {"singularName": "", "namespaced": kind.namespaced, "kind": kind.name}
    if kind in WITH_STATUS:
        entries.append({"name": f"{kind.plural}/status", **below, "verbs": ["patch"]})
    if kind == POD:
        entries.append({"name": "pods/log", **below, "verbs": ["get"]})
    return entries
