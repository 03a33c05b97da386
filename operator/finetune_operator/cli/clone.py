"""``finetune clone``: a new run with the wish of an old one, and changes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_operator.api.finetunerun import API_VERSION, KIND, NAME_LIMIT
from finetune_operator.api.kinds import FINETUNERUN
from finetune_operator.core.resolve import STEERING
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import AlreadyExists
from finetune_operator.loop.pager import list_all

from . import exitcodes
from .assignments import apply_assignments
from .backend import Backend, RunOptions, Target, find_backend
from .documents import Document
from .errors import CommandError, guarded
from .objects import find_run, make
from .output import print_object

_OTHERS = (
    "kubectl.kubernetes.io/", "argocd.argoproj.io/", "kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/", "meta.helm.sh/",
    "app.kubernetes.io/instance", "app.kubernetes.io/managed-by",
)  # fmt: skip
"""Labels and annotations by which a tool knows its own objects: a clone is not one of them, and Argo CD would remove it again."""


def clone_run(
    name: str, new: str | None, assignments: Sequence[str], where: Target, options: RunOptions, *, dry_run: bool
) -> int:
    """Make the new run; with ``dry_run`` or an output format print it instead, as one would write it into a file."""

    def command() -> int:
        backend = find_backend(where)
        wanted = asyncio.run(_clone(backend, name, new, assignments))
        problems = backend.validate(Document(f"clone of {name}", wanted, {}), Path.cwd())
        if problems:
            raise CommandError(problems)
        if dry_run or options.output:
            print_object(wanted, options.output or "yaml")
            return exitcodes.OK
        manifest = backend.placed(wanted, Path.cwd())

        async def begin(cluster: Cluster) -> Object:
            await backend.require(cluster, manifest)
            return await _make(cluster, manifest)

        return backend.start(begin, options, follow=False)

    return guarded(command)


async def _clone(backend: Backend, name: str, new: str | None, assignments: Sequence[str]) -> Object:
    async with backend.opened() as cluster:
        old = await find_run(backend, cluster, name)
        names = {name} if new else {run["metadata"]["name"] async for run in list_all(cluster, FINETUNERUN, backend.namespace)}
    spec = {section: value for section, value in old["spec"].items() if section not in STEERING}
    metadata: dict[str, Any] = {"name": new or _free_name(name, names)}
    for part in ("labels", "annotations"):
        kept = _own(old["metadata"].get(part) or {})
        if kept:
            metadata[part] = kept
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": apply_assignments(spec, assignments)}


def _own(entries: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in entries.items() if not key.startswith(_OTHERS)}


async def _make(cluster: Cluster, manifest: Object) -> Object:
    """The new run. One that was begun by the same command before goes on."""
    metadata = manifest["metadata"]
    try:
        return await make(cluster, manifest)
    except AlreadyExists:
        present = await cluster.get(FINETUNERUN, metadata["namespace"], metadata["name"])
    if {section: value for section, value in present["spec"].items() if section not in STEERING} != manifest["spec"]:
        raise CommandError([f"--name {metadata['name']}: there is another run of that name; choose another one."])
    return present


def _free_name(name: str, taken: Collection[str]) -> str:
    """``demo`` -> ``demo-2``, ``demo-2`` -> ``demo-3``: the first that no run has."""
    stem = re.sub(r"-\d+$", "", name)
    number = 2
    while True:
        suffix = f"-{number}"
        candidate = stem[: NAME_LIMIT - len(suffix)].rstrip("-") + suffix
        if candidate not in taken:
            return candidate
        number += 1
