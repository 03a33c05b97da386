"""The stages that this release runs, and what derives from all of them together."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_operator.api.stages import WORKSPACE, StageDefinition
from finetune_operator.core.run import StageStatus

from .base import OperatorStage, ProgramStage


class StageGraph:
    """The stages in the order in which a pass considers them. The workspace comes first and is not among them.

    Attributes:
        stages: all but the workspace.
        by_name: the same by name.
        programs: those with a program, by name.
        definitions: those of the workspace and of all stages, by name, in order.
        predecessors: by stage, the stages that must have ended before it starts: its ``depends_on``, and those that name it in
            ``precedes``.
        successors: by stage, the stages that it precedes, directly or through others.
        conditions: each stage that has a condition, with its type.
        phases: each stage that starts a phase of the run, with the phase; the last stage first.
        by_progress: the stages with a program; of two that run, ``status.progress`` shows the first.

    Raises:
        ValueError: a stage comes before one of its predecessors.
    """

    def __init__(self, stages: tuple[ProgramStage | OperatorStage, ...]) -> None:
        self.stages = stages
        self.by_name = {stage.name: stage for stage in stages}
        self.programs: dict[str, ProgramStage] = {stage.name: stage for stage in stages if isinstance(stage, ProgramStage)}
        definitions = (WORKSPACE, *(stage.definition for stage in stages))
        self.definitions: dict[str, StageDefinition] = {one.name: one for one in definitions}
        self.predecessors: dict[str, tuple[str, ...]] = {
            one.name: (*one.depends_on, *(other.name for other in definitions if one.name in other.precedes))
            for one in definitions
        }
        seen: set[str] = set()
        for name, needed in self.predecessors.items():
            if not seen.issuperset(needed):
                raise ValueError(
                    f"stage {name}: it is listed before its predecessors {', '.join(sorted({*needed} - seen))}; list it after them"
                )
            seen.add(name)
        self.successors: dict[str, tuple[str, ...]] = {name: self._successors(name) for name in self.definitions}
        self.conditions = tuple((stage.name, stage.definition.condition) for stage in stages if stage.definition.condition)
        self.phases = tuple((one.name, one.phase) for one in reversed(definitions) if one.phase)
        self._model_rejections = tuple((one.name, one.model_rejection) for one in definitions if one.model_rejection)
        latest_first = tuple(reversed(self.programs.values()))
        self.by_progress = tuple(
            stage.name for background in (False, True) for stage in latest_first if stage.definition.background is background
        )

    def definition(self, name: str) -> StageDefinition:
        """Return the definition of a stage. Of a stage that this release does not know, only the name is known."""
        return self.definitions.get(name) or StageDefinition(name=name)

    def rerun(self, first: str) -> tuple[str, ...]:
        """Return the stages that a rerun from ``first`` runs again. The others keep their results."""
        return tuple(stage.name for stage in self.stages if first in stage.definition.reruns)

    def model_rejection(self, stage_statuses: Mapping[str, StageStatus]) -> StageStatus | None:
        """Return the stage that has rejected the model, or ``None``."""
        for name, reason in self._model_rejections:
            stage_status = stage_statuses.get(name)
            if stage_status is not None and stage_status.state == "Failed" and stage_status.reason == reason:
                return stage_status
        return None

    def _successors(self, name: str) -> tuple[str, ...]:
        found = {name}
        for stage in self.stages:
            if not found.isdisjoint(self.predecessors[stage.name]):
                found.add(stage.name)
        return tuple(stage.name for stage in self.stages if stage.name in found and stage.name != name)
