"""``spec`` and the rules that span its sections.

A rule rejects only what no default can make valid. The API server does not know the defaults of the namespace and the operator, so
rules that depend on them are validated on the effective values (``core/contradictions.py``).
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
    """Desired state of the run. Only dataset.uri is required; all other fields default to the preset of the algorithm."""

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
            run_only=True,  # the runs of a namespace may publish their models
        ),
        Rule(
            "!has(self.cleanup) || !has(self.cleanup.volume) || self.cleanup.volume != 'Delete'"
            " || !has(self.storage) || !has(self.storage.claimName)",
            "cleanup.volume: Delete is for claims that the run makes; storage.claimName names one of yours",
            field=".cleanup.volume",
        ),
    )

    dataset: Dataset = Field(description="Data to train on and to evaluate on.")
    model: Model | None = Field(None, description="Base model.")
    training: Training | None = Field(None, description="How the model is trained.")
    evaluation: Evaluation | None = Field(None, description="How the model is evaluated.")
    gate: Gate | None = Field(None, description="Requirements that the model must meet to be registered. Default: no gate.")
    registry: Registry | None = Field(None, description="Entry in the model registry.")
    publish: Publish | None = Field(None, description="Copy of the model outside the workspace.")
    storage: Storage | None = Field(None, description="Workspace volume of the run.")
    queue: Queue | None = Field(None, description="Kueue queue that admits the run.")
    limits: Limits | None = Field(None, description="Time and GPU limits of the run. Default: no limits.")
    retry: Retry | None = Field(None, description="Number of retries of a failed stage, by cause of the failure.")
    cleanup: Cleanup | None = Field(None, description="What is removed after the run has finished, and when.")
    service_account_name: ObjectName | None = Field(
        None,
        description="Name of the ServiceAccount of the pods of all stages. Default: finetune-stage, an account "
        "without permissions that the operator creates.",
    )
    suspend: bool | None = Field(
        None,
        description="Stops the pods of the run and holds the run while true. Set it to false to resume the run. Default: false.",
    )
    rerun: Rerun | None = Field(None, description="Runs a finished run again, from one stage on.")
    approval: ApprovalDecision | None = Field(None, description="Manual approval or rejection of the model.")
