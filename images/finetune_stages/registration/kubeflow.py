"""Kubeflow Model Registry, over its REST API.

A model consists of a RegisteredModel, its ModelVersions, and a ModelArtifact with the model's URI for each of those. Older releases serve
the API below ``v1alpha3``, newer ones below ``v1``; the calls in this module are the same in both.

The code relies on these properties of the server's source (2026-04): names are unique and a duplicate is status 409; ``PATCH`` replaces
the whole map of custom properties; ``find by name`` uses SQL's ``LIKE``, so that ``fine_tuned`` matches ``fine-tuned``; nothing can be
deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .properties import Properties, includes, of_record, replaced, texts, typed
from .record import LABEL, UID, Record
from .registry import AlreadyExists
from .rest import Missing, Rest
from .versions import Entry

PATHS = ("/api/model_registry/v1", "/api/model_registry/v1alpha3")
ALIAS = "alias."
"""Prefix of the registered model's custom properties for aliases, which the API lacks."""
ARTIFACT_TYPE = "model-artifact"

_PAGE = 100

Json = dict[str, Any]


class Kubeflow:
    """A :class:`~.registry.Registry` on a Model Registry server."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self._root = _api_path(rest)
        self._ids: dict[str, str] = {}  # registered models by name; they cannot be deleted or renamed

    def versions(self, record: Record) -> list[Entry]:
        """See the protocol."""
        return self.entries(record.name, record.identity[UID])

    def entries(self, name: str, uid: str) -> list[Entry]:
        """Return the versions of the model ``name``. ``complete`` is determined only for those of the run ``uid``."""
        entries = []
        for version in self._versions(name):
            tags = texts(version.get("customProperties"))
            complete = tags.get(UID) != uid or self._artifact(version["id"]) is not None
            entries.append(Entry(version["name"], version["id"], tags, complete))
        return entries

    def create(self, record: Record, version: str) -> None:
        """See the protocol."""
        self._ids[record.name] = self._model(record)["id"]
        body = {"name": version, "registeredModelId": self._ids[record.name], **_version_fields(record)}
        self._rest.call("POST", f"{self._root}/model_versions", {**body, "customProperties": of_record(record)})

    def update(self, record: Record, entry: Entry) -> None:
        """See the protocol. A single request, so that the update is atomic."""
        version = self._rest.get(f"{self._root}/model_versions/{entry.key}")
        properties = replaced(version.get("customProperties"), of_record(record))
        body = {**_version_fields(record), "customProperties": properties}
        self._rest.call("PATCH", f"{self._root}/model_versions/{entry.key}", body)

    def complete(self, record: Record, entry: Entry) -> None:
        """See the protocol: write the artifact, and restore the version if it was changed."""
        artifact = self._artifact(entry.key)
        fields = _artifact_fields(record)
        if artifact is None:
            try:
                body = {"name": record.name, **fields, "customProperties": _artifact_properties(record)}
                self._rest.call("POST", f"{self._root}/model_versions/{entry.key}/artifacts", body)
            except AlreadyExists:  # by an earlier attempt whose response was lost; it is read back
                pass
        elif not _artifact_is(artifact, record):
            properties = replaced(artifact.get("customProperties"), _artifact_properties(record))
            self._rest.call("PATCH", f"{self._root}/model_artifacts/{artifact['id']}", {**fields, "customProperties": properties})
        if _version_differences(self._rest.get(f"{self._root}/model_versions/{entry.key}"), record):
            self.update(record, entry)

    def set_alias(self, record: Record, entry: Entry, alias: str) -> None:
        """See the protocol. Two runs that set two aliases concurrently may lose one: the API has no conditional update."""
        model = self._model(record)
        fields = {f"{ALIAS}{alias}": typed(entry.version)}
        if not includes(model.get("customProperties"), fields):
            properties = {**(model.get("customProperties") or {}), **fields}
            self._rest.call("PATCH", f"{self._root}/registered_models/{model['id']}", {"customProperties": properties})

    def differences(self, record: Record, entry: Entry) -> list[str]:
        """See the protocol."""
        differing = _version_differences(self._rest.get(f"{self._root}/model_versions/{entry.key}"), record)
        artifact = self._artifact(entry.key)
        if artifact is None:
            differing.append("artifact")
        elif not _artifact_is(artifact, record):
            differing.append("URI, format or source")
        if record.effective_alias and not self._names(record, record.effective_alias, entry):
            differing.append("alias")
        return differing

    def _names(self, record: Record, alias: str, entry: Entry) -> bool:
        """Return whether ``alias`` refers to the entry, or to a newer one of another run."""
        named = texts(self._model(record).get("customProperties")).get(f"{ALIAS}{alias}")
        if named == entry.version:
            return True
        return named in (version["name"] for version in self._versions(record.name) if int(version["id"]) > int(entry.key))

    def url(self, entry: Entry) -> str:
        """Return the address of the entry."""
        return f"{self._rest.access.address}{self._root}/model_versions/{entry.key}"

    def _model(self, record: Record) -> Json:
        """Return the registered model, and create it if it does not exist."""
        model = self._find(record.name)
        if model is None:
            owner = {"owner": record.author} if record.author else {}
            try:
                model = self._rest.call("POST", f"{self._root}/registered_models", {"name": record.name, **owner})
            except AlreadyExists:
                model = self._search(record.name)
        if model is None:
            raise StageError(
                reasons.REGISTRY_REJECTED,
                f"registry.name: the registry has {record.name!r} but does not list it, possibly in other case; set another name.",
            )
        return model

    def _find(self, name: str) -> Json | None:
        try:
            found = self._rest.get(f"{self._root}/registered_model", name=name)
        except Missing:  # none, or several matches of LIKE
            return self._search(name) if {"_", "%"} & set(name) else None
        return found if found.get("name") == name else self._search(name)

    def _search(self, name: str) -> Json | None:
        return next((model for model in self._all("registered_models") if model.get("name") == name), None)

    def _versions(self, name: str) -> list[Json]:
        if name not in self._ids:
            model = self._find(name)
            if model is None:
                return []
            self._ids[name] = model["id"]
        return sorted(self._all(f"registered_models/{self._ids[name]}/versions"), key=lambda version: int(version["id"]))

    def _artifact(self, version_id: str) -> Json | None:
        """Return the version's oldest model artifact, which readers use."""
        artifacts = self._all(f"model_versions/{version_id}/artifacts")
        models = [artifact for artifact in artifacts if artifact.get("artifactType") == ARTIFACT_TYPE]
        return min(models, key=lambda artifact: int(artifact["id"]), default=None)

    def _all(self, path: str) -> Iterator[Json]:
        """Yield the items of a list, page by page."""
        query: dict[str, str | int] = {"pageSize": _PAGE, "orderBy": "ID", "sortOrder": "ASC"}
        while True:
            page = self._rest.get(f"{self._root}/{path}", **query)
            yield from page.get("items") or []
            if not page.get("nextPageToken"):
                return
            query["nextPageToken"] = page["nextPageToken"]


def _api_path(rest: Rest) -> str:
    """Return the path prefix of the server's API. Responses at other paths are undefined.

    Raises:
        StageError: ``RegistryForbidden``: access was denied. ``RegistryRejected``: there is no API.
    """
    refusals: list[StageError] = []
    for path in PATHS:
        try:
            if "items" in rest.get(f"{path}/registered_models", pageSize=1):
                return path
        except Missing:
            pass
        except StageError as fault:
            if fault.reason not in (reasons.REGISTRY_FORBIDDEN, reasons.REGISTRY_REJECTED):
                raise
            refusals.append(fault)
    refusals.sort(key=lambda fault: fault.reason is not reasons.REGISTRY_FORBIDDEN)
    if refusals:
        raise refusals[0]
    raise StageError(
        reasons.REGISTRY_REJECTED,
        f"registry.address: {rest.access.address} does not serve a Model Registry (neither {' nor '.join(PATHS)}); correct the address.",
    )


def _version_fields(record: Record) -> Json:
    """Return the fields of a version. A rejected model is archived, so that dashboards hide it and do not deploy it."""
    author = {"author": record.author} if record.author else {}
    return {"description": record.description, "state": "ARCHIVED" if record.rejected else "LIVE", **author}


def _artifact_fields(record: Record) -> Json:
    return {
        "artifactType": ARTIFACT_TYPE, "uri": record.model_uri, "state": "LIVE", "modelFormatName": record.format,
        "modelFormatVersion": record.format_version, "modelSourceKind": LABEL, "modelSourceClass": "FineTuneRun",
        "modelSourceGroup": record.run.namespace, "modelSourceId": record.run.uid, "modelSourceName": record.run.name,
    }  # fmt: skip


def _artifact_properties(record: Record) -> Properties:
    return {key: typed(value) for key, value in record.identity.items()}


def _version_differences(version: Json, record: Record) -> list[str]:
    differing = [key for key, value in _version_fields(record).items() if version.get(key) != value]
    return differing if includes(version.get("customProperties"), of_record(record)) else [*differing, "properties"]


def _artifact_is(artifact: Json, record: Record) -> bool:
    return _artifact_fields(record).items() <= artifact.items() and includes(
        artifact.get("customProperties"), _artifact_properties(record)
    )
