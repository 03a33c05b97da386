"""The stage graph: one file a stage, and the order in which they are considered."""

from .base import Stage
from .dataset import DatasetStage
from .evaluation import BaselineStage, EvaluationStage
from .model import ModelStage
from .registration import RegistrationStage
from .training import TrainingStage

WORKSPACE = "workspace"
"""The stage that has no program: claim and ConfigMaps."""

STAGES: tuple[Stage, ...] = (
    DatasetStage(), ModelStage(), TrainingStage(), BaselineStage(), EvaluationStage(), RegistrationStage(),
)  # fmt: skip
"""Every stage with a program, each behind those that it comes after."""

STAGE: dict[str, Stage] = {stage.name: stage for stage in STAGES}
ORDER: tuple[str, ...] = (WORKSPACE, *STAGE)

RERUN_FROM: dict[str, tuple[str, ...]] = {
    "dataset": ("dataset", "training", "baseline", "evaluation", "registration"),
    "model": ("model", "training", "baseline", "evaluation", "registration"),
    "training": ("training", "evaluation", "registration"),
    "evaluation": ("baseline", "evaluation", "registration"),
    "gate": ("registration",),
    "registration": ("registration",),
}
"""The stages that a rerun from a stage does again; the others keep their results."""

__all__ = ["ORDER", "RERUN_FROM", "STAGE", "STAGES", "WORKSPACE", "Stage"]
