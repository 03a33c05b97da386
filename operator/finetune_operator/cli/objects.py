"""Finds, creates and changes objects on any backend."""

from __future__ import annotations

import difflib
from typing import Any

from finetune_operator.api.finetunerun import IS_FROZEN, KIND
from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN, Kind
from finetune_operator.core.resolve import CONTROL_FIELDS
from finetune_operator.core.run import Run
from finetune_operator.loop.apply import difference
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import ApiError, Forbidden, Invalid, NotFound
from finetune_operator.loop.pager import list_all

from . import exit_status
from .backend import Backend
from .errors import CommandError
from .rerun_command import remedy_for_edit


def is_not_served(error: ApiError) -> bool:
    """Return whether the API server does not serve the kind at all."""
    return isinstance(error, NotFound) and (
        "could not find the requested resource" in str(error) or "page not found" in str(error)
    )


async def find_run(backend: Backend, cluster: Cluster, name: str) -> Object:
    """Return the run with a name.

    Raises:
        CommandError: it does not exist; the message suggests a similar name.
    """
    try:
        return await cluster.get(FINETUNERUN, backend.namespace, name)
    except NotFound as error:
        if is_not_served(error):
            raise
    try:
        names = [run["metadata"]["name"] async for run in list_all(cluster, FINETUNERUN, backend.namespace)]
    except Forbidden:
        names = []
    near = difflib.get_close_matches(name, names, n=1)
    advice = f"did you mean {near[0]}?" if near else f"list the runs with: finetune get{backend.flags}"
    raise CommandError([f"{name}: no run with this name in {backend.description}; {advice}"], exit_status.NO_INPUT)


async def apply_object(backend: Backend, cluster: Cluster, manifest: Object, repeated: str = "") -> Object:
    """Create an object, or update the existing one to this content, as ``kubectl apply`` does.

    The fields ``suspend``, ``rerun`` and ``approval`` of an existing run are kept if the manifest does not set them. ``repeated``: see
    :func:`edit`.

    Raises:
        CommandError: the API server rejects the content, for example because a frozen section changed.
    """
    kind = FINETUNERUN if manifest["kind"] == KIND else CONFIGMAP
    metadata = manifest["metadata"]
    try:
        present = await cluster.get(kind, metadata["namespace"], metadata["name"])
    except NotFound:
        return await create_object(cluster, manifest)
    patch: dict[str, Any] = {}
    kept = {field: (present.get("spec") or {})[field] for field in CONTROL_FIELDS if field in (present.get("spec") or {})}
    if kept:
        manifest = {**manifest, "spec": {**kept, **manifest["spec"]}}
    for part in ("spec", "data", "binaryData"):
        change = difference(present.get(part) or {}, manifest.get(part) or {})
        if change:
            patch[part] = change
    labels = metadata.get("labels") or {}
    if any((present["metadata"].get("labels") or {}).get(key) != value for key, value in labels.items()):
        patch["metadata"] = {"labels": labels}
    return await edit(backend, cluster, present, patch, kind, repeated=repeated) if patch else present


async def create_object(cluster: Cluster, manifest: Object) -> Object:
    """Create an object.

    Raises:
        CommandError: the API server rejects the content.
        AlreadyExists: the object exists.
    """
    try:
        return await cluster.create(manifest)
    except Invalid as error:
        raise CommandError(causes(error)) from None


async def edit(
    backend: Backend, cluster: Cluster, document: Object, patch: Object, kind: Kind = FINETUNERUN, *, repeated: str = ""
) -> Object:
    """Merge-patch an object. ``repeated``: options of this command that a suggested command needs, too.

    Raises:
        CommandError: the API server rejects the change, for example because a frozen section changed.
    """
    metadata = document["metadata"]
    try:
        return await cluster.patch(kind, metadata["namespace"], metadata["name"], patch)
    except Invalid as error:
        frozen = any(IS_FROZEN in message for message in causes(error))
        options = f"{backend.flags}{repeated}"
        remedy = remedy_for_edit(Run.parse(document), patch.get("spec") or {}, options) if frozen else "correct the value"
        raise CommandError([*causes(error), f"{metadata['name']}: nothing was changed; {remedy}"]) from None


def causes(error: ApiError) -> list[str]:
    """Return the message of each invalid field."""
    return [f"{field}: {message}" if field else message for field, message in error.causes] or [error.message]
