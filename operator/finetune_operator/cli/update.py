"""``finetune suspend``, ``resume`` and ``rerun``: change a run that exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from finetune_operator.core.run import Run
from finetune_operator.local.store.merge import merge_patch
from finetune_operator.loop.apply import difference
from finetune_operator.loop.cluster import Cluster, Object

from . import exit_status
from .assignments import apply_assignments
from .backend import Backend
from .backend_selection import find_backend
from .errors import CommandError, handle_errors
from .objects import edit, find_run
from .options import RunOptions, Target
from .validate import unknown_fields


def suspend_run(name: str, target: Target, options: RunOptions) -> int:
    """Stop the stages of a run until it is resumed; completed stages keep their results."""
    return handle_errors(lambda: _set_suspend(find_backend(target), name, options, suspend=True))


def resume_run(name: str, target: Target, options: RunOptions) -> int:
    """Resume a suspended or stopped run."""
    return handle_errors(lambda: _set_suspend(find_backend(target), name, options, suspend=None))


def _set_suspend(backend: Backend, name: str, options: RunOptions, *, suspend: bool | None) -> int:

    async def change(cluster: Cluster) -> Object:
        document = await find_run(backend, cluster, name)
        if Run.parse(document).ended:
            raise CommandError(
                [f"{name}: the run has ended; run it again with: finetune rerun {name}{backend.flags} --from STAGE"]
            )
        if not suspend and not options.allow_code:
            await backend.check_code(cluster, document["spec"])
        return await edit(backend, cluster, document, {"spec": {"suspend": suspend}})

    return backend.update(
        change, "suspension requested" if suspend else "resume requested", replace(options, suspends=bool(suspend))
    )


def rerun_run(name: str, target: Target, options: RunOptions, *, stage: str, id_: str | None, assignments: Sequence[str]) -> int:
    """Run a finished run again from a stage on; ``assignments`` change the sections of that stage and of later ones."""

    def command() -> int:
        backend = find_backend(target)

        async def change(cluster: Cluster) -> Object:
            document = await find_run(backend, cluster, name)
            run = Run.parse(document)
            if not run.ended:
                raise CommandError(
                    [
                        f"{name}: the run has not ended; wait until it has ended, or start a new run with: finetune clone {name}{backend.flags}"
                    ]
                )
            rerun_id = id_ or f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
            if run.status.get("rerunId") == rerun_id:
                raise CommandError([f"--id {rerun_id}: the last rerun has this ID; choose another one."], exit_status.USAGE)
            changed = {**apply_assignments(run.spec, assignments), "rerun": {"id": rerun_id, "from": stage}}
            unknown = unknown_fields(changed)
            if unknown:
                raise CommandError([*unknown, f"{name}: nothing was changed; correct --set."])
            patch = difference(run.spec, changed)
            if not patch:
                raise CommandError(
                    [f"--id {rerun_id}: this rerun is already requested; change a field with --set, or choose another ID."],
                    exit_status.USAGE,
                )
            spec = merge_patch(run.spec, patch)
            if not options.allow_code:
                await backend.check_code(cluster, spec)
            await _check(backend, cluster, name, spec)
            return await edit(backend, cluster, document, {"spec": patch}, repeated=options.repeated)

        return backend.update(change, f"rerun from {stage} requested", options)

    return handle_errors(command)


async def _check(backend: Backend, cluster: Cluster, name: str, spec: Mapping[str, Any]) -> None:
    """Raise an error if the rerun with ``spec`` is known to be rejected."""
    try:
        await backend.check_rerun(cluster, spec)
    except CommandError as rejection:
        raise CommandError([*rejection.lines, f"{name}: nothing was changed; correct the value"], rejection.code) from None
