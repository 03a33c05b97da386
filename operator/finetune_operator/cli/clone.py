"""``finetune clone``: a new run with the wish of an old one, and changes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finetune_operator.api.crd import crd
from finetune_operator.api.finetunerun import API_VERSION, KIND, NAME_LIMIT
from finetune_operator.core.resolve import STEERING
from finetune_operator.local.home import Home
from finetune_operator.local.judge import Judge
from finetune_operator.local.platform import NAMESPACE, Platform
from finetune_operator.loop.cluster import Object
from finetune_operator.loop.errors import NotFound

from . import exitcodes
from .assignments import apply_assignments
from .documents import Document
from .drive import Options, Refused, drive, guarded, put_run
from .get import load_runs, unknown_run
from .output import print_object
from .run import absolute
from .validate import judge_document


def clone_run(name: str, new: str | None, assignments: Sequence[str], options: Options, *, dry_run: bool) -> int:
    """Make the new run and follow it to its end; with ``dry_run`` print it as YAML instead."""

    def command() -> int:
        wanted = _clone(name, new, assignments, Home.find(options.home))
        if dry_run:
            print_object(wanted, options.output or "yaml")
            return exitcodes.OK
        manifest = {**wanted, "metadata": {**wanted["metadata"], "namespace": NAMESPACE}}

        async def begin(platform: Platform) -> Object:
            return await put_run(platform.store, absolute(manifest, Path.cwd()))

        return drive(begin, options)

    return guarded(command)


def _clone(name: str, new: str | None, assignments: Sequence[str], home: Home) -> Object:
    try:
        (old,) = asyncio.run(load_runs(home, name))
    except NotFound:
        raise Refused([unknown_run(home, name)], exitcodes.NO_INPUT) from None
    spec = {section: value for section, value in old["spec"].items() if section not in STEERING}
    metadata: dict[str, Any] = {"name": new or _free_name(name, asyncio.run(load_runs(home, None)))}
    for part in ("labels", "annotations"):
        if old["metadata"].get(part):
            metadata[part] = old["metadata"][part]
    wanted = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": apply_assignments(spec, assignments)}
    problems = judge_document(Judge(crd()), Document(f"clone of {name}", wanted, {}))
    if problems:
        raise Refused(problems)
    return wanted


def _free_name(name: str, runs: Sequence[Object]) -> str:
    """``demo`` -> ``demo-2``, ``demo-2`` -> ``demo-3``: the first that no run has."""
    taken = {run["metadata"]["name"] for run in runs}
    stem = re.sub(r"-\d+$", "", name)
    number = 2
    while True:
        suffix = f"-{number}"
        candidate = stem[: NAME_LIMIT - len(suffix)].rstrip("-") + suffix
        if candidate not in taken:
            return candidate
        number += 1
