"""``finetune clone``: a new run with the spec of an existing run and changes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from finetune_operator.api.finetunerun import API_VERSION, KIND, NAME_LIMIT
from finetune_operator.api.kinds import FINETUNERUN
from finetune_operator.core.resolve import CONTROL_FIELDS
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import AlreadyExists
from finetune_operator.loop.pager import list_all

from . import exit_status
from .assignments import apply_assignments
from .backend import Backend
from .backend_selection import find_backend
from .documents import Document
from .errors import CommandError, handle_errors
from .objects import create_object, find_run
from .options import RunOptions, Target
from .output import print_object

_TOOL_PREFIXES = (
    "kubectl.kubernetes.io/", "argocd.argoproj.io/", "kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/", "meta.helm.sh/",
    "app.kubernetes.io/instance", "app.kubernetes.io/managed-by",
)  # fmt: skip
"""Labels and annotations of deployment tools. A clone with them would belong to the tool; Argo CD would prune it."""


def clone_run(
    name: str, new: str | None, assignments: Sequence[str], target: Target, options: RunOptions, *, dry_run: bool
) -> int:
    """Create the new run; with ``dry_run`` or an output format, print its manifest instead."""

    def command() -> int:
        backend = find_backend(target)
        clone = asyncio.run(_clone(backend, name, new, assignments))
        problems = backend.validate(Document(f"clone of {name}", clone, {}), Path.cwd())
        if problems:
            raise CommandError(problems)
        if dry_run or options.output:
            print_object(clone, options.output or "yaml")
            return exit_status.OK
        manifest = backend.prepare(clone, Path.cwd())

        async def begin(cluster: Cluster) -> Object:
            await backend.check_prerequisites(cluster, manifest)
            if not options.allow_code:
                await backend.check_code(cluster, manifest["spec"])
            return await _create_or_get(cluster, manifest)

        return backend.start(begin, options, follow=False)

    return handle_errors(command)


async def _clone(backend: Backend, name: str, new: str | None, assignments: Sequence[str]) -> Object:
    async with backend.connect() as cluster:
        old = await find_run(backend, cluster, name)
        names = {name} if new else {run["metadata"]["name"] async for run in list_all(cluster, FINETUNERUN, backend.namespace)}
    spec = {section: value for section, value in old["spec"].items() if section not in CONTROL_FIELDS}
    metadata: dict[str, Any] = {"name": new or _free_name(name, names)}
    for part in ("labels", "annotations"):
        kept = _user_entries(old["metadata"].get(part) or {})
        if kept:
            metadata[part] = kept
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": apply_assignments(spec, assignments)}


def _user_entries(entries: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in entries.items() if not key.startswith(_TOOL_PREFIXES)}


async def _create_or_get(cluster: Cluster, manifest: Object) -> Object:
    """Create the run, or return the existing one if an earlier call of the same command created it."""
    metadata = manifest["metadata"]
    try:
        return await create_object(cluster, manifest)
    except AlreadyExists:
        present = await cluster.get(FINETUNERUN, metadata["namespace"], metadata["name"])
    if {section: value for section, value in present["spec"].items() if section not in CONTROL_FIELDS} != manifest["spec"]:
        raise CommandError([f"--name {metadata['name']}: a different run with this name exists; choose another name."])
    return present


def _free_name(name: str, used: Collection[str]) -> str:
    """Return the first unused name in the series ``demo``, ``demo-2``, ``demo-3``."""
    stem = re.sub(r"-\d+$", "", name)
    number = 2
    while True:
        suffix = f"-{number}"
        candidate = stem[: NAME_LIMIT - len(suffix)].rstrip("-") + suffix
        if candidate not in used:
            return candidate
        number += 1
