"""``spec`` whole, and the rules that join its sections.

A rule rejects what no default can make valid. What depends on the defaults of the namespace or the operator is validated on the
effective values (``core/contradictions.py``): the API server does not know them.
"""

from __future__ import annotations

from pydantic import Field

from .dataset import Dataset
from .evaluation import HOLDOUT_METRICS, SINGLE_TASKS, Evaluation, Gate
from .lifecycle import ApprovalDecision, Cleanup, Limits, Queue, Rerun, Retry
from .model import Model
from .registry import Publish, Registry, Storage
from .section import ObjectName, Rule, Section
from .training import Training

_EVALUATED = "(!has(self.evaluation) || !has(self.evaluation.enabled) || self.evaluation.enabled)"
_HOLDOUT = "(!has(self.evaluation) || !has(self.evaluation.holdout) || self.evaluation.holdout)"
_STATES_TASKS = "has(self.evaluation) && has(self.evaluation.tasks)"
_REQUIREMENTS = "!has(self.gate) || !has(self.gate.requirements) || self.gate.requirements"
_ON_HELD_OUT_ROWS = "one.metric.startsWith('holdout.')"


class FineTuneRunSpec(Section):
    """What is wished. Only ``dataset.uri`` must be given; everything else has the values of the algorithm's preset."""

    RULES = (
        Rule(
            f"!has(self.gate) || {_EVALUATED}",
            "a gate needs an evaluation: remove gate, or set evaluation.enabled to true",
            field=".gate",
        ),
        Rule(
            # The tasks of a group or tag may have any name, and only the evaluation knows them.
            f"""!({_STATES_TASKS}) || self.evaluation.tasks.exists(task, !(task in {list(SINGLE_TASKS)}))
              || {_REQUIREMENTS}.all(one, {_ON_HELD_OUT_ROWS}
                || self.evaluation.tasks.exists(task, one.metric.startsWith(task + '.')))""",
            "a metric of gate.requirements belongs to no task in evaluation.tasks; name <task>.<metric> or holdout.<metric>, or add its"
            " task to evaluation.tasks",
            field=".gate.requirements",
        ),
        Rule(
            f"{_REQUIREMENTS}.all(one, !{_ON_HELD_OUT_ROWS}) || {_HOLDOUT}",
            "a metric of gate.requirements is measured on held-out rows, and evaluation.holdout is false; remove evaluation.holdout, or"
            " the requirement",
            field=".gate.requirements",
        ),
        Rule(
            f"{_REQUIREMENTS}.all(one, !{_ON_HELD_OUT_ROWS} || one.metric in {list(HOLDOUT_METRICS)})",
            f"held-out rows have only the metrics {', '.join(HOLDOUT_METRICS)}; name one of them in gate.requirements",
            field=".gate.requirements",
        ),
        Rule(
            f"!{_EVALUATED} || !({_STATES_TASKS}) || self.evaluation.tasks.size() > 0 || {_HOLDOUT}",
            "evaluation has nothing to measure: evaluation.tasks is empty and evaluation.holdout is false; name a task, remove"
            " evaluation.holdout, or set evaluation.enabled to false",
            field=".evaluation.tasks",
        ),
        Rule(
            """!has(self.storage) || !has(self.storage.accessModes) || !('ReadWriteOncePod' in self.storage.accessModes)
              || !has(self.training) || !has(self.training.workers) || self.training.workers == 1""",
            "a volume of mode ReadWriteOncePod has room for one pod, and training.workers is above 1; choose another access mode",
            field=".storage.accessModes",
        ),
        Rule(
            "!has(self.gate) || !has(self.evaluation) || !has(self.evaluation.onFailure) || self.evaluation.onFailure != 'Continue'",
            "evaluation.onFailure: Continue would pass the gate unmeasured; remove it or the gate",
            field=".evaluation.onFailure",
        ),
        Rule(
            "!has(self.cleanup) || !has(self.cleanup.volume) || self.cleanup.volume != 'Delete' || has(self.publish)",
            "cleanup.volume: Delete would delete the registered model with the volume; set Retain, or remove cleanup.volume",
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
