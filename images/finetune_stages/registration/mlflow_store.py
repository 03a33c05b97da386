"""MLflow's store in one sqlite file, through MLflow's own client and without a server.

``mlflow ui --backend-store-uri sqlite:///<workspace>/mlflow.db`` shows what is written here. MLflow numbers the versions of a model
itself (1, 2, 3 ...); the version that the user wants (``1.0.0``) is the tag ``version``.

Every step finds what an earlier attempt left and goes on from there, and a lock file keeps two runs of one workspace apart: MLflow's
first migration of an empty file and "which version is free" are no place for two.
"""

from __future__ import annotations

import fcntl
import gc
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_contract import reasons
from finetune_contract.progress import Progress
from finetune_contract.workspace import MLFLOW_STORE
from finetune_stages.kit import Context, StageError
from finetune_stages.kit.fault import first_line
from finetune_stages.sources.work_folder import work_folder

from .record import LOSS, Record
from .versions import next_version

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

VERSION = "version"
"""The tag with the version that the user wants."""

_NOT_NEEDED = ("chardet", "matplotlib", "numpy", "pandas", "pyarrow", "scipy", "sklearn")
"""What MLflow imports where it is installed, and does without where it is not (its own package mlflow-skinny lacks it)."""
_LOCKED_SECONDS = 10
"""So long a store that somebody else has locked is waited for."""
_BATCH = 100
"""Parameters, or metrics, of one call; MLflow allows 100 and 1,000."""


@dataclass(frozen=True)
class Entry:
    """What was registered: the version's tag and MLflow's number for it, and the MLflow run that it belongs to."""

    version: str
    registry_version: str
    run_id: str


def register(record: Record, context: Context) -> Entry:
    """Write ``record`` into the workspace's store, or complete it there, and read it back.

    Raises:
        StageError: ``RegistryRefused``, ``RegistryUnreachable``, ``ReadBackFailed``.
    """
    store = context.path(MLFLOW_STORE)
    _require_free_alias(record)
    with _without(_NOT_NEEDED), _errors(store):
        from mlflow import MlflowClient
        from mlflow.store.tracking import sqlalchemy_store  # noqa: F401 - the client imports it when it is first used

        context.report(Progress(percent=50, note=f"waiting for {store.name}"), force=True)
        with _lock(store.with_name(f"{store.name}.lock")):
            if store.exists():
                _require_readable(store)
            else:
                _create(store, context)
            client = MlflowClient(tracking_uri=f"sqlite:///{store}", registry_uri=f"sqlite:///{store}")
            context.report(Progress(percent=70, note=f"writing {record.name} into {store.name}"), force=True)
            return _write(client, record)


def _write(client: MlflowClient, record: Record) -> Entry:
    run_id = _run(client, record)
    _log(client, record, run_id)
    version = _version(client, record, run_id)
    if record.alias:
        client.set_registered_model_alias(record.name, record.alias, version.version)
    client.set_terminated(run_id, "FINISHED", end_time=record.ended)
    entry = Entry(version.tags[VERSION], str(version.version), run_id)
    _read_back(client, record, entry)
    return entry


def _run(client: MlflowClient, record: Record) -> str:
    """The MLflow run of the record: made with its tags in one transaction, so that it is found again."""
    experiment = client.get_experiment_by_name(record.experiment)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(record.experiment)
    same = " and ".join(f"tags.`{key}` = '{value}'" for key, value in record.identity.items())
    found = client.search_runs([experiment_id], same, max_results=1)
    tags = {**record.identity, **record.lineage, "mlflow.note.content": record.description}
    if "author" in record.version_tags:
        tags["mlflow.user"] = record.version_tags["author"]
    if found:
        return str(found[0].info.run_id)
    return str(client.create_run(experiment_id, record.started, tags, record.run_name).info.run_id)


def _log(client: MlflowClient, record: Record, run_id: str) -> None:
    """Parameters and metrics. Written twice they are there once: the points bear the times of what they report."""
    from mlflow.entities import Metric, Param

    metrics = [Metric(point.key, point.value, point.time, point.step) for point in record.points]
    params = [Param(key, value) for key, value in record.parameters.items()]
    for start in range(0, max(len(metrics), len(params)), _BATCH):
        client.log_batch(run_id, metrics[start : start + _BATCH], params[start : start + _BATCH])


def _version(client: MlflowClient, record: Record, run_id: str) -> ModelVersion:
    """The record's version of the registered model; a new one where no earlier attempt made it."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(record.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = _versions(client, record.name)
    own = [version for version in versions if record.identity.items() <= version.tags.items()]
    if own:
        return own[0]
    taken = {version.tags[VERSION] for version in versions if VERSION in version.tags}
    tags = {**record.identity, **record.lineage, **record.version_tags, VERSION: next_version(record.version, taken)}
    return client.create_model_version(record.name, record.model_uri, run_id, tags, description=record.description)


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    found: list[Any] = []
    token = None
    while token != "":
        page = client.search_model_versions(f"name = '{name}'", max_results=1000, page_token=token)
        found, token = [*found, *page], page.token or ""
    return found


def _read_back(client: MlflowClient, record: Record, entry: Entry) -> None:
    """Ask the store for everything again.

    Raises:
        StageError: ``ReadBackFailed``, naming what differs.
    """
    version = client.get_model_version(record.name, entry.registry_version)
    run = client.get_run(entry.run_id)
    curve = {(point.step, point.value) for point in client.get_metric_history(entry.run_id, LOSS)}
    wanted_tags = {**record.identity, **record.lineage, **record.version_tags, VERSION: entry.version}
    comparisons = {
        "source": version.source == record.model_uri,
        "description": version.description == record.description,
        "run": version.run_id == entry.run_id and run.info.status == "FINISHED",
        "tags": wanted_tags.items() <= version.tags.items(),
        "parameters": run.data.params == record.parameters,
        "metrics": {point.key for point in record.points} <= set(run.data.metrics),
        "loss curve": {(point.step, point.value) for point in record.points if point.key == LOSS} <= curve,
        "alias": not record.alias or client.get_model_version_by_alias(record.name, record.alias).version == version.version,
    }
    differing = [what for what, same in comparisons.items() if not same]
    if differing:
        raise StageError(
            reasons.READ_BACK_FAILED,
            f"{record.name} {entry.version}: the store gave back another {', '.join(differing)} than written.",
        )


def _create(store: Path, context: Context) -> None:
    """A new store, made aside: a migration that is cut short would leave a file that MLflow cannot open again."""
    from mlflow import MlflowClient

    context.report(Progress(percent=60, note=f"creating {store.name}"), force=True)
    with work_folder(context) as folder:
        aside = folder / store.name
        MlflowClient(tracking_uri=f"sqlite:///{aside}", registry_uri=f"sqlite:///{aside}").search_experiments(max_results=1)
        aside.chmod(0o664)  # sqlite does not ask the umask
        aside.rename(store)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path``. The kernel takes it back from a program that is killed."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _without(modules: tuple[str, ...]) -> Iterator[None]:
    """Let imports of ``modules`` fail inside, and spare the garbage collector the imports of the others: half the time."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    blocked = [name for name in modules if name not in sys.modules]
    nothing: Any = None  # in place of a module it makes an import raise ModuleNotFoundError
    sys.modules.update(dict.fromkeys(blocked, nothing))
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        for name in blocked:
            sys.modules.pop(name, None)


@contextmanager
def _errors(store: Path) -> Iterator[None]:
    """MLflow's and sqlite's errors as one sentence."""
    try:
        yield
    except Exception as error:
        fault = _fault(error, store)
        if fault is None:
            raise
        raise fault from error


def _fault(error: Exception, store: Path) -> StageError | None:
    said = first_line(error)
    if "database is locked" in str(error):
        return StageError(reasons.REGISTRY_UNREACHABLE, f"{store} is locked by another program; close what writes to it.")
    if "out-of-date database schema" in str(error):
        upgrade = f"back it up and run: mlflow db upgrade sqlite:///{store}"
        return StageError(reasons.REGISTRY_REFUSED, f"{store} is of another release of MLflow: {upgrade}")
    if type(error).__name__ == "MlflowException":
        return StageError(reasons.REGISTRY_REFUSED, f"MLflow's store {store} refused the entry: {said}")
    return None


def _require_readable(store: Path) -> None:
    """MLflow would try a file that is locked, or no database at all, for two minutes."""
    try:
        with closing(sqlite3.connect(f"{store.as_uri()}?mode=rw", uri=True, timeout=_LOCKED_SECONDS)) as connection:
            connection.execute("pragma schema_version").fetchone()
    except sqlite3.DatabaseError as error:
        fault = _fault(error, store)
        hint = "move it away, or give back the right to read and write it"
        raise fault or StageError(reasons.REGISTRY_REFUSED, f"{store} cannot be opened ({error}): {hint}.") from error


def _require_free_alias(record: Record) -> None:
    """MLflow keeps some aliases for itself; it would say so when all else is written."""
    if record.alias and (record.alias.lower() == "latest" or re.fullmatch(r"[vV]\d+", record.alias)):
        raise StageError(
            reasons.REGISTRY_REFUSED, f"registry.alias: {record.alias!r} is reserved by MLflow; choose another, such as champion."
        )
