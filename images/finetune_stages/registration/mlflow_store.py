"""MLflow's store in one SQLite file of the workspace, without a server.

``mlflow ui --backend-store-uri sqlite:///<workspace>/mlflow.db`` shows its content. A lock file serializes the runs of one workspace,
because MLflow's first migration of an empty file and the choice of a free version are not safe for concurrent use.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from finetune_contract import reasons
from finetune_contract.progress import Progress
from finetune_contract.workspace import MLFLOW_STORE
from finetune_stages.sdk import Context, StageError, quick_imports, without
from finetune_stages.sources.work_folder import work_folder

from .mlflow_faults import store_errors, store_fault
from .mlflow_registry import VERSION, MLflow
from .record import LABEL, Record
from .versions import Entry

_NOT_NEEDED = ("chardet", "matplotlib", "numpy", "pandas", "pyarrow", "scipy", "sklearn")
"""Optional imports of MLflow, which its package mlflow-skinny lacks."""
_LOCKED_SECONDS = 10
"""Timeout for a store that another program has locked."""
_LIVE = "select 1 from model_versions where name = ? and version = ? and current_stage != 'Deleted_Internal'"
_NAMED = """
    select named.version, tag.key, tag.value from model_versions as known
    join model_version_tags as named on named.name = known.name and named.version = known.version and named.key = ?
    join model_version_tags as tag on tag.name = known.name and tag.version = known.version
    where known.name = ? and named.value = ? and known.current_stage != 'Deleted_Internal' and tag.key like ?
"""


@contextmanager
def workspace_store(record: Record, context: Context) -> Iterator[MLflow]:
    """Registry in the workspace's store, which is created if it does not exist and locked while it is open.

    Raises:
        StageError: ``RegistryRejected``, ``RegistryUnreachable``.
    """
    store = context.path(MLFLOW_STORE)
    os.chdir(context.workspace)  # MLflow's artifact folder is relative to it at the creation of the store
    with imports(), store_errors(store):
        from mlflow import MlflowClient
        from mlflow.store.tracking import sqlalchemy_store  # noqa: F401 - the client imports it when it is first used

        context.report(Progress(percent=50, note=f"waiting for {store.name}"), force=True)
        with _lock(store.with_name(f"{store.name}.lock")):
            if store.exists():
                _require_readable(store)
            else:
                _create(store, context)
            context.report(Progress(percent=70, note=f"writing {record.name} into {store.name}"), force=True)
            yield MLflow(MlflowClient(tracking_uri=f"sqlite:///{store}", registry_uri=f"sqlite:///{store}"))


def has_version(store: Path, name: str, number: str) -> bool:
    """Return whether MLflow's version ``number`` of a model is in the store. SQLite is queried directly, because importing MLflow takes seconds."""
    try:
        with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(_LIVE, (name, number)).fetchone() is not None
    except sqlite3.Error:  # no store, or one of another release: the registration handles it
        return False


def entry_named(store: Path, name: str, version: str) -> Entry | None:
    """Return the entry with the tag ``version``, if any, from SQLite.

    Raises:
        StageError: ``RegistryRejected``, ``RegistryUnreachable``: the file exists but is not a readable store.
    """
    if not store.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True, timeout=_LOCKED_SECONDS)) as connection:
            rows = connection.execute(_NAMED, (VERSION, name, version, f"{LABEL}/%")).fetchall()
            exists = rows or connection.execute(_NAMED, (VERSION, name, version, VERSION)).fetchall()
    except sqlite3.DatabaseError as error:
        raise _unreadable(error, store) from error
    return Entry(version, str(exists[0][0]), {key: value for _, key, value in rows}) if exists else None


@contextmanager
def imports() -> Iterator[None]:
    """Speed up MLflow's imports, also those that it does at run time, to half the time."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with without(*_NOT_NEEDED), quick_imports():
        yield


def _create(store: Path, context: Context) -> None:
    """Create a store under a temporary name: MLflow cannot open a file with an incomplete migration."""
    from mlflow import MlflowClient

    context.report(Progress(percent=60, note=f"creating {store.name}"), force=True)
    with work_folder(context) as folder:
        aside = folder / store.name
        MlflowClient(tracking_uri=f"sqlite:///{aside}", registry_uri=f"sqlite:///{aside}").search_experiments(max_results=1)
        aside.chmod(0o664)  # SQLite ignores the umask
        aside.rename(store)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path``. The kernel releases it if the program is killed."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _require_readable(store: Path) -> None:
    """Check the file, because MLflow retries a locked or invalid file for two minutes."""
    try:
        with closing(sqlite3.connect(f"{store.as_uri()}?mode=rw", uri=True, timeout=_LOCKED_SECONDS)) as connection:
            connection.execute("pragma schema_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise _unreadable(error, store) from error


def _unreadable(error: sqlite3.DatabaseError, store: Path) -> StageError:
    hint = "move it away, or restore its permissions"
    return store_fault(error, store) or StageError(reasons.REGISTRY_REJECTED, f"{store}: it cannot be opened ({error}); {hint}.")
