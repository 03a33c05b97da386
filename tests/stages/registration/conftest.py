"""What the tests of stage *registration* share: the results of a run's earlier stages, and a look into MLflow's store."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.codec import encode
from finetune_contract.documents import RegistrationInputs
from finetune_contract.result import (
    DatasetOutputs,
    EvaluationOutputs,
    LossPoint,
    ModelOutputs,
    Result,
    TrainingOutputs,
)

CURVE = tuple(LossPoint(10 * number, round(8 / (number + 1), 4)) for number in range(64))
DATA, BASE, MODEL = "d" * 64, "b" * 64, "c" * 64
REPORTS = {
    "dataset": (DatasetOutputs(DATA, 90, 10, "e" * 64, 100), {"train_rows": 90.0, "seconds": 1.0}, ()),
    "model": (ModelOutputs(BASE, 7_000_000, 28_000_000, "Qwen2"), {"seconds": 2.0}, ()),
    "training": (TrainingOutputs(MODEL, 180, 180, 90, 0, 630, 1, True), {"loss": 2.1, "seconds": 50.0}, CURVE),
    "evaluation": (
        EvaluationOutputs(MODEL, 10, ("holdout",)),
        {"holdout.bits_per_byte": 1.7, "quiz.acc": 0.5, "seconds": 9.0},
        (),
    ),
    "baseline": (EvaluationOutputs(BASE, 10, ("holdout",)), {"holdout.bits_per_byte": 2.2, "seconds": 8.0}, ()),
}


def write_results(workspace: Path, root: str, *, without: tuple[str, ...] = (), model: str = MODEL) -> dict[str, str]:
    """Full results as the stages leave them, by stage."""
    names = {}
    for number, (stage, (outputs, metrics, history)) in enumerate(REPORTS.items()):
        if stage in without:
            continue
        values = encode(outputs)
        if stage == "training":
            values["digest"] = model
        result = Result(stage, "1.1", str(number) * 64, "Succeeded", metrics=metrics, outputs=values, history=history)
        names[stage] = f"{root}/results/{stage}.1.{str(number) * 12}.json"
        (workspace / names[stage]).parent.mkdir(parents=True, exist_ok=True)
        (workspace / names[stage]).write_text(json.dumps(encode(result)))
    return names


def wish(results: dict[str, str], **changes: Any) -> RegistrationInputs:
    """Inputs of the stage."""
    given = {
        "kind": "MLflow", "name": "pydoc-helper", "version": "1.0.0", "model_uri": "file:///data/final_model", "author": "Ada",
        "alias": "champion", "parameters": {"epochs": 2, "learningRate": 1e-4, "liger": False, "scheduler": "cosine"},
    }  # fmt: skip
    return RegistrationInputs(**{**given, "results": results, **changes})


@pytest.fixture(scope="session")
def mlflow_client() -> Any:
    """MLflow's client class; importing it warns of its own dependencies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient
        from mlflow.store.tracking import sqlalchemy_store  # noqa: F401 - imported late by MLflow itself
    return MlflowClient


@pytest.fixture
def look(run_stage_program: Any, mlflow_client: Any) -> Any:
    """A function that opens the workspace's store."""
    uri = f"sqlite:///{run_stage_program.workspace}/mlflow.db"
    return lambda: mlflow_client(tracking_uri=uri, registry_uri=uri)
