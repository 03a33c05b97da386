"""``spec`` whole, and the rules that join its sections."""

from __future__ import annotations

from pydantic import Field

from .dataset import Dataset
from .evaluation import Evaluation, Gate
from .lifecycle import ApprovalDecision, Cleanup, Limits, Queue, Rerun, Retry
from .model import Model
from .registry import Publish, Registry, Storage
from .section import ObjectName, Rule, Section
from .training import Training

_EVALUATED = "(!has(self.evaluation) || !has(self.evaluation.enabled) || self.evaluation.enabled)"
_HELD_OUT = "(!has(self.evaluation) || !has(self.evaluation.holdout) || self.evaluation.holdout)"
_TASKS = "(has(self.evaluation) && has(self.evaluation.tasks) ? self.evaluation.tasks : ['arc_easy'])"


class FineTuneRunSpec(Section):
    """What is wished. Only ``dataset.uri`` must be given; everything else has the values of the algorithm's preset."""

    RULES = (
        Rule(
            f"!has(self.gate) || {_EVALUATED}",
            "a gate needs an evaluation: remove gate, or set evaluation.enabled to true",
            field=".gate",
        ),
        Rule(
            f"""!has(self.gate) || !has(self.gate.requirements) || self.gate.requirements.all(one,
              (one.metric.startsWith('holdout.') && {_HELD_OUT})
              || {_TASKS}.exists(task, one.metric.startsWith(task + '.') || one.metric.startsWith(task + '_')))""",
            "each gate.requirements[].metric must begin with holdout. or with the name of a task in evaluation.tasks and a dot",
            field=".gate.requirements",
        ),
        Rule(
            "!has(self.gate) || !has(self.evaluation) || !has(self.evaluation.onFailure) || self.evaluation.onFailure != 'Continue'",
            "evaluation.onFailure: Continue would pass the gate unmeasured; remove it or the gate",
            field=".evaluation.onFailure",
        ),
        Rule(
            f"""!has(self.evaluation) || !{_EVALUATED} || !has(self.evaluation.tasks) || self.evaluation.tasks.size() > 0
              || {_HELD_OUT}""",
            "evaluation has nothing to measure: name a task, leave holdout on, or set evaluation.enabled to false",
            field=".evaluation.tasks",
        ),
        Rule(
            "!has(self.cleanup) || !has(self.cleanup.volume) || self.cleanup.volume != 'Delete' || has(self.publish)",
            "cleanup.volume: Delete would delete the registered model with the volume; add publish, or keep the volume",
            field=".cleanup.volume",
        ),
        Rule(
            "!has(self.cleanup) || !has(self.cleanup.volume) || self.cleanup.volume != 'Delete'"
            " || !has(self.storage) || !has(self.storage.claimName)",
            "cleanup.volume: Delete is for claims that the run makes; storage.claimName names one of yours",
            field=".cleanup.volume",
        ),
    )

    dataset: Dataset = Field(description="The data to train on and to measure with.")
    model: Model | None = Field(None, description="The base model.")
    training: Training | None = Field(None, description="How the model is trained.")
    evaluation: Evaluation | None = Field(None, description="How the model is measured.")
    gate: Gate | None = Field(None, description="What the model must reach to be registered.")
    registry: Registry | None = Field(None, description="The entry in the model registry.")
    publish: Publish | None = Field(None, description="A copy of the model outside the workspace.")
    storage: Storage | None = Field(None, description="The workspace volume.")
    queue: Queue | None = Field(None, description="Kueue.")
    limits: Limits | None = Field(None, description="How long things may take.")
    retry: Retry | None = Field(None, description="How often a stage is tried.")
    cleanup: Cleanup | None = Field(None, description="What is removed, and when.")
    service_account_name: ObjectName | None = Field(
        None, description="ServiceAccount of the pods. Default: one without rights that the operator creates."
    )
    suspend: bool | None = Field(None, description="Stop what runs and hold the run; false goes on. Default: false.")
    rerun: Rerun | None = Field(None, description="Run a finished run again, from one stage on.")
    approval: ApprovalDecision | None = Field(None, description="A person's word on the model that waits at the gate.")
