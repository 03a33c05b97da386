"""The stages of a run, each declared once.

Status, reruns, children, the command line, Argo CD's actions and the documentation derive from this table. It holds data only;
:mod:`finetune_operator.core.stages` has the behavior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class StageDefinition:
    """Everything about a stage that is data.

    Attributes:
        name: name in status and in documents, and the value of the label ``finetunerun.io/stage``.
        purpose: what the stage does, in a sentence.
        depends_on: the stages that must have ended before this one starts, as far as this declaration names them.
        precedes: stages that wait for this one although their own ``depends_on`` does not name it.
            :class:`~finetune_operator.core.stages.StageGraph` derives the predecessors of a stage from both.
        reads: the stages whose results are inputs: its inputs digest covers their output digests.
        reruns: the values of ``spec.rerun.from`` that run the stage again. A stage that lists itself is such a value.
        rerun_from: the value to recommend after the stage has failed; its own name if empty.
        condition: type of the condition that reports the stage.
        phase: phase of the run from the start of the stage on.
        model_rejection: reason with which the stage rejects the model. That ends the run without a failure.
        program: the package in ``finetune_stages`` that its pods run; ``None`` if the operator itself does the work.
        shared_image: the program whose image the pods run in; its own if empty.
        child_kind: kind of the object that runs the pods.
        child_infix: the part of the child's name that identifies the stage; its own name if empty.
        pod_section: the section of ``spec`` whose placement, resources and similar fields are copied into its pods.
        background: the stage runs beside another one, which has precedence in ``status.progress``.
        quiet: its success is logged and counted, and is no Event.
        announced: its start is an Event too, not only its end.
        reserved: the contract has the stage, and this release does not run it.
    """

    name: str
    purpose: str = ""
    depends_on: tuple[str, ...] = ()
    precedes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    reruns: tuple[str, ...] = ()
    rerun_from: str = ""
    condition: str | None = None
    phase: str | None = None
    model_rejection: str | None = None
    program: str | None = None
    shared_image: str = ""
    child_kind: Literal["Job", "TrainJob"] = "Job"
    child_infix: str = ""
    pod_section: str | None = None
    background: bool = False
    quiet: bool = False
    announced: bool = False
    reserved: bool = False

    @property
    def image(self) -> str:
        """The program whose image the pods run in; empty for a stage without a program."""
        return self.shared_image or self.program or ""

    @property
    def rerun_target(self) -> str:
        """The value of ``spec.rerun.from`` to recommend after the stage has failed."""
        return self.rerun_from or self.name


WORKSPACE = StageDefinition(
    name="workspace", purpose="Create the volume and the objects that the stages share.",
    rerun_from="dataset", condition="WorkspaceReady", quiet=True,
)  # fmt: skip
DATASET = StageDefinition(
    name="dataset", purpose="Fetch, check and split the data.",
    depends_on=("workspace",), reruns=("dataset",), condition="DatasetReady", program="dataset",
)  # fmt: skip
MODEL = StageDefinition(
    name="model", purpose="Fetch and check the base model.",
    depends_on=("workspace",), reruns=("model",), condition="ModelReady", program="model",
)  # fmt: skip
REGISTRY_CHECK = StageDefinition(
    name="registry-check", purpose="Check that the registry does not have the version yet.",
    depends_on=("workspace",), reruns=("dataset", "model", "training", "evaluation", "gate", "registration"),
    rerun_from="registration", program="registration", quiet=True,
)  # fmt: skip
ENGINE_CHECK = StageDefinition(
    name="engine-check", purpose="Check without a GPU that the training image has an engine for the training.",
    depends_on=("workspace",), reruns=("dataset", "model", "training"), rerun_from="training", program="training",
    child_kind="TrainJob", child_infix="engine", background=True, quiet=True,
)  # fmt: skip
TOKENIZATION = StageDefinition(
    name="tokenization", purpose="Render and tokenize the rows to train on and to score.",
    depends_on=("dataset", "model"), reads=("dataset", "model"), reruns=("dataset", "model", "training", "evaluation"),
    rerun_from="training", program="tokenization", shared_image="dataset",
)  # fmt: skip
TRAINING = StageDefinition(
    name="training", purpose="Train the model.",
    depends_on=("tokenization", "registry-check", "engine-check"), reads=("model", "tokenization"), reruns=("dataset", "model", "training"),
    condition="Trained", phase="Training", program="training", child_kind="TrainJob", child_infix="train", pod_section="training",
    announced=True,
)  # fmt: skip
BASELINE = StageDefinition(
    name="baseline", purpose="Measure the base model.",
    depends_on=("tokenization",), reads=("model", "dataset", "tokenization"), reruns=("dataset", "model", "evaluation"), rerun_from="evaluation",
    program="evaluation", background=True,
)  # fmt: skip
EVALUATION = StageDefinition(
    name="evaluation", purpose="Measure the fine-tuned model.",
    depends_on=("tokenization", "training"), reads=("training", "dataset", "tokenization"),
    reruns=("dataset", "model", "training", "evaluation"), condition="Evaluated", phase="Evaluating", program="evaluation", child_infix="eval", pod_section="evaluation",
)  # fmt: skip
GATE = StageDefinition(
    name="gate", purpose="Compare the scores with the requirements.",
    depends_on=("evaluation", "baseline"), reruns=("dataset", "model", "training", "evaluation", "gate"), condition="GatePassed",
    model_rejection="GateRejected",
)  # fmt: skip
APPROVAL = StageDefinition(
    name="approval", purpose="Wait for the decision of a person.",
    depends_on=("gate",), precedes=("registration",), reruns=("dataset", "model", "training", "evaluation", "gate"),
    rerun_from="gate", condition="Approved", phase="AwaitingApproval", reserved=True,
)  # fmt: skip
REGISTRATION = StageDefinition(
    name="registration", purpose="Register the model with its scores and its lineage.",
    depends_on=("training", "evaluation", "baseline", "gate"), reads=("dataset", "model", "training", "evaluation", "baseline"),
    reruns=("dataset", "model", "training", "evaluation", "gate", "registration"), condition="Registered", phase="Registering",
    program="registration", child_infix="register",
)  # fmt: skip

STAGES: tuple[StageDefinition, ...] = (
    WORKSPACE, DATASET, MODEL, REGISTRY_CHECK, ENGINE_CHECK, TOKENIZATION, TRAINING, BASELINE, EVALUATION, GATE, APPROVAL,
    REGISTRATION,
)  # fmt: skip
"""Every stage, each behind those that it depends on."""
NAMES: tuple[str, ...] = tuple(stage.name for stage in STAGES)
RERUN_TARGETS: tuple[str, ...] = tuple(stage.name for stage in STAGES if stage.name in stage.reruns)
"""The values of ``spec.rerun.from``, in order."""
IMAGES: tuple[str, ...] = tuple(stage.name for stage in STAGES if stage.image == stage.name)
"""The programs that have an image of their own."""
