"""The types of stages: when one may start, its inputs, what proves its work, and what it adds to status."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from finetune_contract.codec import digest, encode
from finetune_contract.reasons import Reason
from finetune_contract.result import Result
from finetune_operator.api.stages import TRAINING, StageDefinition
from finetune_operator.core.decision import Create
from finetune_operator.core.manifests.pod import PodNeeds
from finetune_operator.core.observation import Observed, Ref
from finetune_operator.core.paths import Object
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.run import Run


class Stage(ABC):
    """The behavior of one stage. Its data are in ``definition``."""

    definition: ClassVar[StageDefinition]

    def __init__(self) -> None:
        self.name = self.definition.name

    def skipped(self, run: Run) -> str | None:
        """Return the reason why the run does without this stage, or ``None`` if the stage is to run."""
        return None

    def allow_failure(self, run: Run) -> bool:
        """Return whether the stages that depend on this one start even if it fails."""
        return False


@dataclass(frozen=True)
class Outcome:
    """What an :class:`OperatorStage` finds.

    Attributes:
        state: ``Running`` while the stage waits.
        reason: a :class:`~finetune_contract.reasons.Reason` with state ``Failed`` fails the run; any other is a plain name.
        status_fields: top-level fields of status to set or merge.
    """

    state: Literal["Running", "Succeeded", "Failed"]
    reason: Reason | str
    message: str
    status_fields: Mapping[str, Any] = field(default_factory=dict)


class OperatorStage(Stage):
    """A stage without a program: the operator itself does the work, or waits for an entry in ``spec``."""

    @abstractmethod
    def evaluate(self, run: Run) -> Outcome:
        """Return the state of the stage, from the run alone. It is called in every pass until the stage has ended."""


class ProgramStage(Stage):
    """A stage whose work a program does, in the pods of a Job or TrainJob."""

    OWNS: ClassVar[tuple[str, ...]] = ()
    """The fields of status that the stage writes (``section`` or ``section.field``). A rerun of the stage removes them first."""

    @property
    def program(self) -> str:
        """The package in ``finetune_stages`` that the pods run."""
        assert self.definition.program is not None, "a ProgramStage has one"  # for the type checker
        return self.definition.program

    @property
    def reads(self) -> tuple[str, ...]:
        """The stages whose results are inputs."""
        return self.definition.reads

    def ready(self, run: Run, observed: Observed) -> bool:
        """Return whether the stage may start now, given that the stages before it have ended."""
        return True

    @abstractmethod
    def inputs(self, run: Run) -> Any:
        """Return the input document, one of :mod:`finetune_contract.documents`. It is the same throughout a round."""

    @abstractmethod
    def pod(self, run: Run) -> PodNeeds:
        """Return what its pods need."""

    @abstractmethod
    def verify(self, run: Run, result: Result) -> str | None:
        """Return which proof of the work is missing, in a sentence; ``None`` if the proof is complete.

        Raises:
            DocumentError: the outputs are not those of this stage.
        """

    def lookups(self, run: Run, objects: Mapping[Ref, Object]) -> tuple[Ref, ...]:
        """Return the objects to read before the stage starts, as far as ``objects``, which were read before, determine them."""
        return ()

    def earlier_answer(self, run: Run, observed: Observed) -> str | None:
        """Return what an earlier run found out, in a sentence, so that the stage ends without an attempt; ``None`` for an attempt."""
        return None

    def record(self, run: Run, result: Result, pod: PodReport) -> Create | None:
        """Return the creation of an object with which later runs of the namespace do without an attempt, ``None`` for no object."""
        return None

    def claims(self, run: Run) -> tuple[str, ...]:
        """Return the claims that its pods mount beside the workspace."""
        return ()

    def status_fields(self, run: Run, result: Result) -> dict[str, Any]:
        """Return the top-level fields of status that a finished stage sets."""
        return {}

    def output_digest(self, result: Result) -> str | None:
        """Return the digest of the outputs, for the stages that read them."""
        found = result.outputs.get("digest")
        return found if isinstance(found, str) else None


def inputs_digest(stage: ProgramStage, run: Run) -> str:
    """Return the digest of everything that a stage's result depends on: its inputs, its program, and the results that it reads."""
    resolved = run.status.get("resolved") or {}
    images = resolved.get("images") or {}
    program = resolved.get("entryDigest") if stage.program == TRAINING.program else images.get(stage.definition.image)
    return digest({
        "stage": stage.name,
        "program": program,
        "inputs": encode(stage.inputs(run)),
        "reads": {name: run.stages[name].output_digest for name in stage.reads if name in run.stages},
    })  # fmt: skip
