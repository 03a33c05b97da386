"""Runs looked up, made and changed, wherever they are."""

from __future__ import annotations

import difflib
from typing import Any

from finetune_operator.api.finetunerun import KIND
from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN, Kind
from finetune_operator.core.resolve import STEERING
from finetune_operator.loop.apply import difference
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import ApiError, Forbidden, Invalid, NotFound
from finetune_operator.loop.pager import list_all

from . import exitcodes
from .backend import Backend
from .errors import CommandError


def is_not_served(error: ApiError) -> bool:
    """Whether the kind itself is unknown there, not one object of it."""
    return isinstance(error, NotFound) and (
        "could not find the requested resource" in str(error) or "page not found" in str(error)
    )


async def find_run(backend: Backend, cluster: Cluster, name: str) -> Object:
    """The run of a name.

    Raises:
        CommandError: there is none: the sentence names what is near.
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
    advice = f"did you mean {near[0]}?" if near else f"finetune get{backend.flags} lists them."
    raise CommandError([f"{name}: there is no run of that name in {backend.words}; {advice}"], exitcodes.NO_INPUT)


async def put(backend: Backend, cluster: Cluster, manifest: Object) -> Object:
    """Make an object, or give the one that exists this content, as ``kubectl apply`` would.

    The words that steer a run on its way (suspend, rerun, approval) stay as they are where the content is silent.

    Raises:
        CommandError: the content is refused: a frozen section was edited, for example.
    """
    kind = FINETUNERUN if manifest["kind"] == KIND else CONFIGMAP
    metadata = manifest["metadata"]
    try:
        present = await cluster.get(kind, metadata["namespace"], metadata["name"])
    except NotFound:
        return await make(cluster, manifest)
    patch: dict[str, Any] = {}
    kept = {word: (present.get("spec") or {})[word] for word in STEERING if word in (present.get("spec") or {})}
    if kept:
        manifest = {**manifest, "spec": {**kept, **manifest["spec"]}}
    for part in ("spec", "data", "binaryData"):
        change = difference(present.get(part) or {}, manifest.get(part) or {})
        if change:
            patch[part] = change
    labels = metadata.get("labels") or {}
    if any((present["metadata"].get("labels") or {}).get(key) != value for key, value in labels.items()):
        patch["metadata"] = {"labels": labels}
    return await edit(backend, cluster, present, patch, kind) if patch else present


async def make(cluster: Cluster, manifest: Object) -> Object:
    """Make an object that does not exist yet.

    Raises:
        CommandError: its content is refused.
        AlreadyExists: it does.
    """
    try:
        return await cluster.create(manifest)
    except Invalid as error:
        raise CommandError(causes(error)) from None


async def edit(backend: Backend, cluster: Cluster, document: Object, patch: Object, kind: Kind = FINETUNERUN) -> Object:
    """Merge-patch an object.

    Raises:
        CommandError: the change is refused: a frozen section was edited, for example.
    """
    metadata = document["metadata"]
    try:
        return await cluster.patch(kind, metadata["namespace"], metadata["name"], patch)
    except Invalid as error:
        anew = f"Nothing was changed. To start anew under this name: finetune delete {metadata['name']}{backend.flags}"
        raise CommandError([*causes(error), anew]) from None


def causes(error: ApiError) -> list[str]:
    """What the API holds against an object: a line for each field."""
    return [f"{field}: {message}" if field else message for field, message in error.causes] or [error.message]
