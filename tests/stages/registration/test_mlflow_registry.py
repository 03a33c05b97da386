"""MLflow as a registry: its own client on a file, cut short after every call, raced by others, and giving back what was not written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune_stages.registration.mlflow_registry import MLflow
from finetune_stages.registration.record import LOSS, UID, Record
from finetune_stages.registration.registry import register
from finetune_stages.sdk import StageError

from .conftest import CURVE


def versions(client: Any, name: str = "pydoc-helper") -> list[Any]:
    return sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory, mlflow_client: Any) -> Path:
    """A store with nothing in it. Making one takes MLflow longer than all else here."""
    path = tmp_path_factory.mktemp("store") / "empty.db"
    uri = f"sqlite:///{path}"
    mlflow_client(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)
    return path


@pytest.fixture
def client(tmp_path: Path, empty_store: Path, mlflow_client: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{shutil.copy(empty_store, tmp_path / 'other.db')}"
    return mlflow_client(tracking_uri=uri, registry_uri=uri)


class Cut(BaseException):
    """The program was cut short here."""


class CutShort:
    """A client that works for a number of calls, and is cut short right after the last of them."""

    def __init__(self, client: Any, calls: int) -> None:
        self._client, self._left = client, calls

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._left -= 1
            try:
                return getattr(self._client, name)(*args, **kwargs)
            finally:  # also if the answer is a rejection
                if self._left == 0:
                    raise Cut

        return call


def test_cut_short_at_any_call_the_next_attempt_completes_it(record: Record, client: Any) -> None:
    finished, calls = False, 0
    while not finished:
        calls += 1
        own = replace(record, name=f"model-{calls}", identity={**record.identity, UID: f"{calls}"})
        try:
            register(MLflow(CutShort(client, calls)), own, "Fail")
            finished = True
        except Cut:
            pass
        entry = register(MLflow(client), own, "Fail")
        assert entry.version == "1.0.0"
        (version,) = versions(client, own.name)
        assert version.run_id == entry.run_id
        assert len(client.get_metric_history(entry.run_id, LOSS)) == len(CURVE)
        same = f"tags.`{UID}` = '{calls}'"
        assert len(client.search_runs([client.get_experiment_by_name("finetune").experiment_id], same)) == 1
    assert calls > 15


def test_an_update_that_is_cut_short_anywhere_is_completed(record: Record, client: Any) -> None:
    finished, cut = False, 0
    while not finished:
        cut += 1
        own = replace(record, name=f"updated-{cut}", identity={**record.identity, UID: f"old-{cut}"})
        register(MLflow(client), own, "Fail")
        client.set_registered_model_alias(own.name, "production", "1")
        new = replace(own, model_uri="pvc://claim/new", identity={**record.identity, UID: f"new-{cut}"}, alias=None)
        try:
            register(MLflow(CutShort(client, cut)), new, "Update")
            finished = True
        except Cut:
            pass
        entry = register(MLflow(client), new, "Update")
        old, made = versions(client, own.name)
        assert (entry.version, entry.key, made.source) == ("1.0.0", "2", "pvc://claim/new")
        assert (old.tags.get("version"), old.tags["finetunerun.io/superseded-by"]) == (None, "2")
        assert old.source == own.model_uri
        for alias in ("champion", "production"):  # what pointed to 1.0.0 still does
            assert str(client.get_model_version_by_alias(own.name, alias).version) == "2"
    assert cut > 15


def test_of_two_that_took_the_same_version_the_second_gives_way(record: Record, client: Any) -> None:
    """A server has no lock over "which version is free": somebody registers between the look and the writing."""
    other = replace(record, identity={**record.identity, UID: "other"})

    class Raced(CutShort):
        raced = False

        def __getattr__(self, name: str) -> Any:
            if name == "create_model_version" and not self.raced:
                Raced.raced = True
                register(MLflow(client), other, "NewVersion")
            return super().__getattr__(name)

    entry = register(MLflow(Raced(client, 1000)), record, "NewVersion")
    assert [(version.tags["version"], version.tags[UID]) for version in versions(client)] == [
        ("1.0.0", "other"), ("1.0.1", record.identity[UID]),
    ]  # fmt: skip
    assert entry.version == "1.0.1"


def test_what_comes_back_otherwise_fails(record: Record, client: Any) -> None:
    class Forgetful(CutShort):
        def __getattr__(self, name: str) -> Any:
            if name == "get_model_version":
                return lambda *args: self._client.get_model_version_by_alias(record.name, "older")
            return super().__getattr__(name)

    older = replace(record, alias="older", model_uri="file:///elsewhere", identity={**record.identity, UID: "older"})
    register(MLflow(client), older, "Fail")
    with pytest.raises(StageError, match="the registry returned another source, run, tags") as raised:
        register(MLflow(Forgetful(client, 1000)), record, "NewVersion")
    assert raised.value.reason.name == "ReadBackFailed"
