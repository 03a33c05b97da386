"""What a stage is to the control plane: when it may begin, what it is told, what proves it, what it adds to status."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from finetune_contract.codec import digest, encode
from finetune_contract.result import Result
from finetune_operator.core.manifests.pod import PodNeeds
from finetune_operator.core.observation import Observed
from finetune_operator.core.run import Run


class Stage:
    """One stage in the graph.

    Attributes:
        name: of the stage, in status and in documents.
        condition: the condition that tells of it, if one does.
        after: the stages that must have ended well (or been skipped) before.
    """

    name: ClassVar[str]
    condition: ClassVar[str | None] = None
    depends_on: ClassVar[tuple[str, ...]] = ("workspace",)

    def skipped(self, run: Run) -> str | None:
        """The reason for which the run does without this stage, if it does."""
        return None

    def allow_failure(self, run: Run) -> bool:
        """Whether the run goes on when this stage has failed."""
        return False


class ProgramStage(Stage, ABC):
    """A stage that is the work of a program.

    Attributes:
        program: the ``finetune_stages`` package that it runs.
        image: the program whose image it runs in; its own where this is empty.
        reads: the stages whose results it depends on: their digests belong to its own.
        kind: the kind of its child.
        pod_section: the section of ``spec`` whose placement, resources and the like are copied into its pods.
    """

    program: ClassVar[str]
    image: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ()
    kind: ClassVar[str] = "Job"
    pod_section: ClassVar[str | None] = None

    def ready(self, run: Run, observed: Observed) -> bool:
        """Whether it may begin now, beyond the end of those before it."""
        return True

    @abstractmethod
    def inputs(self, run: Run) -> Any:
        """Its input document, one of :mod:`finetune_contract.documents`. The same from the start of a round to its end."""

    @abstractmethod
    def pod(self, run: Run) -> PodNeeds:
        """What its pods need."""

    @abstractmethod
    def verify(self, run: Run, result: Result) -> str | None:
        """The sentence that says which proof of the work is missing; ``None`` where it is whole.

        Raises:
            DocumentError: the outputs are not those of this stage.
        """

    def status_fields(self, run: Run, result: Result) -> dict[str, Any]:
        """What a finished stage adds to status, top-level fields of it."""
        return {}

    def output_digest(self, result: Result) -> str | None:
        """The digest of what the stage made, for the stages that read it."""
        found = result.outputs.get("digest")
        return found if isinstance(found, str) else None


def inputs_digest(stage: ProgramStage, run: Run) -> str:
    """The digest of everything that a stage's result depends on: its inputs, its program, and the results that it reads."""
    resolved = run.status.get("resolved") or {}
    images = resolved.get("images") or {}
    program = resolved.get("entryDigest") if stage.program == "training" else images.get(stage.image or stage.program)
    return digest({
        "stage": stage.name,
        "program": program,
        "inputs": encode(stage.inputs(run)),
        "reads": {name: run.stages[name].output_digest for name in stage.reads if name in run.stages},
    })  # fmt: skip
