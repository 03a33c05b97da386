"""``finetune suspend``, ``resume`` and ``rerun``: words to a run that is on its way, or at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from finetune_operator.core.run import Run
from finetune_operator.loop.apply import difference
from finetune_operator.loop.cluster import Cluster, Object

from . import exitcodes
from .assignments import apply_assignments
from .backend import Backend, RunOptions, Target, find_backend
from .errors import CommandError, guarded
from .objects import edit, find_run
from .validate import unknown_fields


def suspend_run(name: str, where: Target, options: RunOptions) -> int:
    """Stop what a run does, and hold it. Its stages are asked to end; what they have done stays."""
    return guarded(lambda: _set_suspend(find_backend(where), name, options, suspend=True))


def resume_run(name: str, where: Target, options: RunOptions) -> int:
    """Let a suspended run go on, to its end."""
    return guarded(lambda: _set_suspend(find_backend(where), name, options, suspend=None))


def _set_suspend(backend: Backend, name: str, options: RunOptions, *, suspend: bool | None) -> int:
    advice = "there is nothing to suspend" if suspend else f"finetune rerun {name}{backend.flags} does a part of it again"

    async def change(cluster: Cluster) -> Object:
        document = await find_run(backend, cluster, name)
        if Run.parse(document).ended:
            raise CommandError([f"{name}: has ended; {advice}."])
        return await edit(backend, cluster, document, {"spec": {"suspend": suspend}})

    return backend.update(
        change, "is being suspended" if suspend else "resume requested", replace(options, suspends=bool(suspend))
    )


def rerun_run(name: str, where: Target, options: RunOptions, *, stage: str, id_: str | None, assignments: Sequence[str]) -> int:
    """Run a finished run again, from a stage on; ``assignments`` edit the sections of that stage and of those after it."""

    def command() -> int:
        backend = find_backend(where)

        async def change(cluster: Cluster) -> Object:
            document = await find_run(backend, cluster, name)
            run = Run.parse(document)
            if not run.ended:
                raise CommandError([f"{name}: has not ended yet; wait for its end."])
            word = id_ or f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
            if run.status.get("rerunId") == word:
                raise CommandError([f"--id {word}: was used by the last rerun; choose another word."], exitcodes.USAGE)
            wanted = {**apply_assignments(run.spec, assignments), "rerun": {"id": word, "from": stage}}
            unknown = unknown_fields(wanted)
            if unknown:
                raise CommandError([*unknown, "Nothing was changed."])
            patch = difference(run.spec, wanted)
            if not patch:
                raise CommandError(
                    [f"--id {word}: the run asks for this rerun already; change a field with --set, or choose another word."],
                    exitcodes.USAGE,
                )
            return await edit(backend, cluster, document, {"spec": patch})

        return backend.update(change, f"rerun from {stage} requested", options)

    return guarded(command)
