"""What the tests of stage *registration* share: the results of a run's earlier stages, registries, a look into MLflow's store."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from certificates import self_signed
from finetune_contract.codec import encode
from finetune_contract.documents import RegistrationInputs, StageDocument
from finetune_contract.result import (
    DatasetOutputs,
    EvaluationOutputs,
    LossPoint,
    ModelOutputs,
    Result,
    TrainingOutputs,
)
from finetune_contract.workspace import Attempt
from finetune_stages.registration import registry as registry_module
from finetune_stages.registration.record import Record, read_record
from finetune_stages.sdk import Context
from model_registry_server import ModelRegistryServer

CURVE = tuple(LossPoint(10 * number, round(8 / (number + 1), 4)) for number in range(64))
DATA, BASE, MODEL = "d" * 64, "b" * 64, "c" * 64
TRAINED = TrainingOutputs(
    MODEL, 180, 180, 90, 0, 630, 1, True, engine="training-hub", versions={"training-hub": "0.4.0", "torch": "2.9.0"},
)  # fmt: skip
ENGINE = {"finetunerun.io/engine": "training-hub", "finetunerun.io/engine-versions": "training-hub 0.4.0, torch 2.9.0"}
"""Tags of the training engine."""
REPORTS = {
    "dataset": (DatasetOutputs(DATA, 90, 10, "e" * 64, 100), {"train_rows": 90.0, "seconds": 1.0}, ()),
    "model": (ModelOutputs(BASE, 7_000_000, 28_000_000, "Qwen2"), {"seconds": 2.0}, ()),
    "training": (TRAINED, {"loss": 2.1, "seconds": 50.0}, CURVE),
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


def stage_inputs(results: dict[str, str], **changes: Any) -> RegistrationInputs:
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


@pytest.fixture
def programs(run_stage_program: Any) -> Any:
    return run_stage_program


@pytest.fixture
def results(programs: Any) -> dict[str, str]:
    return write_results(programs.workspace, programs.layout.root)


@pytest.fixture
def record(programs: Any, results: dict[str, str]) -> Record:
    """The record that the program makes of :func:`stage_inputs`."""
    document = StageDocument(2, "registration", programs.run, {})
    context = Context(document, programs.workspace, Attempt(1, 1), "0" * 64)
    return read_record(context, stage_inputs(results), {})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without delay."""
    monkeypatch.setattr(registry_module, "WAITS", (0.0, 0.0, 0.0))


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step is retried: the next start of the program completes the work."""
    monkeypatch.setattr(registry_module, "WAITS", ())


@pytest.fixture
def server() -> Iterator[ModelRegistryServer]:
    """A Model Registry of the newer release."""
    with ModelRegistryServer() as serving:
        yield serving


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a certificate for 127.0.0.1 that signs itself, and its key."""
    return self_signed(tmp_path_factory.mktemp("tls"))
