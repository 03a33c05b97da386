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
from .objects import edit, find_run
from .place import Options, Place, Where, find_place
from .refusal import Refused, guarded
from .validate import unknown_fields


def suspend_run(name: str, where: Where, options: Options) -> int:
    """Stop what a run does, and hold it. Its stages are asked to end; what they have done stays."""
    return guarded(lambda: _set_suspend(find_place(where), name, options, suspend=True))


def resume_run(name: str, where: Where, options: Options) -> int:
    """Let a suspended run go on, to its end."""
    return guarded(lambda: _set_suspend(find_place(where), name, options, suspend=None))


def _set_suspend(place: Place, name: str, options: Options, *, suspend: bool | None) -> int:
    advice = "there is nothing to suspend" if suspend else f"finetune rerun {name}{place.flags} does a part of it again"

    async def change(cluster: Cluster) -> Object:
        document = await find_run(place, cluster, name)
        if Run.parse(document).ended:
            raise Refused([f"{name}: has ended; {advice}."])
        return await edit(place, cluster, document, {"spec": {"suspend": suspend}})

    return place.steer(change, "is being suspended" if suspend else "resume requested", replace(options, suspends=bool(suspend)))


def rerun_run(name: str, where: Where, options: Options, *, stage: str, id_: str | None, assignments: Sequence[str]) -> int:
    """Run a finished run again, from a stage on; ``assignments`` edit the sections of that stage and of those after it."""

    def command() -> int:
        place = find_place(where)

        async def change(cluster: Cluster) -> Object:
            document = await find_run(place, cluster, name)
            run = Run.parse(document)
            if not run.ended:
                raise Refused([f"{name}: has not ended yet; wait for its end."])
            word = id_ or f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
            if run.status.get("rerunId") == word:
                raise Refused([f"--id {word}: was used by the last rerun; choose another word."], exitcodes.USAGE)
            wanted = {**apply_assignments(run.spec, assignments), "rerun": {"id": word, "from": stage}}
            unknown = unknown_fields(wanted)
            if unknown:
                raise Refused([*unknown, "Nothing was changed."])
            patch = difference(run.spec, wanted)
            if not patch:
                raise Refused(
                    [f"--id {word}: the run asks for this rerun already; change a field with --set, or choose another word."],
                    exitcodes.USAGE,
                )
            return await edit(place, cluster, document, {"spec": patch})

        return place.steer(change, f"rerun from {stage} requested", options)

    return guarded(command)
