"""The stages of a run: a file for each, and :data:`GRAPH` with all of them."""

from .base import OperatorStage, Outcome, ProgramStage, Stage
from .dataset import DatasetStage
from .engine_check import EngineCheckStage
from .evaluation import BaselineStage, EvaluationStage
from .gate import GateStage
from .graph import StageGraph
from .model import ModelStage
from .registration import RegistrationStage
from .registry_check import RegistryCheckStage
from .tokenization import TokenizationStage
from .training import TrainingStage

GRAPH = StageGraph((
    DatasetStage(), ModelStage(), RegistryCheckStage(), EngineCheckStage(), TokenizationStage(), TrainingStage(), BaselineStage(),
    EvaluationStage(), GateStage(), RegistrationStage(),
))  # fmt: skip
"""The stages that this release runs. The rest of the core reads it as ``stages.GRAPH`` in every call."""

__all__ = ["GRAPH", "OperatorStage", "Outcome", "ProgramStage", "Stage", "StageGraph"]
