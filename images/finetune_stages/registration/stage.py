"""The work of stage *registration*: collect what is known of the model, write it into MLflow's store, read it back."""

from __future__ import annotations

import os
import sqlite3

from finetune_contract.documents import RegistrationInputs
from finetune_contract.progress import Progress
from finetune_contract.result import RegistrationOutputs, Result
from finetune_contract.workspace import MLFLOW_STORE
from finetune_stages.kit import Context, Finished, run_stage

from .mlflow_store import register
from .record import read_record


def main() -> int:
    """Run the stage and return its exit code."""
    return run_stage(("registration",), work, still_there)


def still_there(context: Context, result: Result) -> bool:
    """Whether the version that an earlier result describes is still in the store. Asked of sqlite: importing MLflow takes seconds."""
    store = context.path(MLFLOW_STORE)
    known = (result.outputs.get("name"), result.outputs.get("registryVersion"))
    question = "select 1 from model_versions where name = ? and version = ? and current_stage != 'Deleted_Internal'"
    try:
        with sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True) as connection:
            return connection.execute(question, known).fetchone() is not None
    except sqlite3.Error:  # no store, or one of another release: registering again finds what is there
        return False


def work(context: Context) -> Finished:
    """Register the model, or complete what an earlier attempt began.

    Raises:
        StageError: see :func:`read_record` and :func:`register`.
    """
    inputs = context.inputs(RegistrationInputs)
    record = read_record(context, inputs)
    os.chdir(context.workspace)  # MLflow's folder for artifacts is relative to it when the store is made
    context.report(Progress(percent=0, note="loading MLflow"), force=True)
    entry = register(record, context)
    outputs = RegistrationOutputs(
        kind=inputs.kind, name=record.name, version=entry.version, registry_version=entry.registry_version,
        model_uri=record.model_uri, read_back=True, run_id=entry.run_id,
    )  # fmt: skip
    message = f"{record.name} {entry.version}, version {entry.registry_version} in MLflow"
    return Finished(outputs, message=message)
