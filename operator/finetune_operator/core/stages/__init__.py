"""The stage graph: one file a stage, and the order in which they are considered."""

from .base import ProgramStage, Stage
from .dataset import DatasetStage
from .evaluation import BaselineStage, EvaluationStage
from .gate import GATE, GateStage
from .model import ModelStage
from .registration import RegistrationStage
from .registry_check import RegistryCheckStage
from .tokenization import TokenizationStage
from .training import TrainingStage

WORKSPACE = "workspace"
"""The stage that has no program: claim and ConfigMaps."""

STAGES: tuple[Stage, ...] = (
    DatasetStage(), ModelStage(), RegistryCheckStage(), TokenizationStage(), TrainingStage(), BaselineStage(), EvaluationStage(),
    GateStage(), RegistrationStage(),
)  # fmt: skip
"""Every stage but the workspace, each behind those that it comes after."""

STAGE: dict[str, Stage] = {stage.name: stage for stage in STAGES}
PROGRAMS: dict[str, ProgramStage] = {stage.name: stage for stage in STAGES if isinstance(stage, ProgramStage)}
"""The stages with a program."""
ORDER: tuple[str, ...] = (WORKSPACE, *STAGE)

_FROM_GATE = ("registry-check", "gate", "registration")
RERUN_FROM: dict[str, tuple[str, ...]] = {
    "dataset": ("dataset", "tokenization", "training", "baseline", "evaluation", *_FROM_GATE),
    "model": ("model", "tokenization", "training", "baseline", "evaluation", *_FROM_GATE),
    "training": ("tokenization", "training", "evaluation", *_FROM_GATE),
    "evaluation": ("tokenization", "baseline", "evaluation", *_FROM_GATE),
    "gate": _FROM_GATE,
    "registration": ("registry-check", "registration"),
}
"""The stages that a rerun from a stage does again; the others keep their results."""

__all__ = ["GATE", "ORDER", "PROGRAMS", "RERUN_FROM", "STAGE", "STAGES", "WORKSPACE", "ProgramStage", "Stage"]
