"""Kubeflow Model Registry as a registry: lost, rejected and truncated calls; names, pages, races and properties."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from finetune_contract import reasons
from finetune_stages.registration import kubeflow as kubeflow_module
from finetune_stages.registration import rest as rest_module
from finetune_stages.registration.kubeflow import Kubeflow
from finetune_stages.registration.properties import OURS, of_record, replaced, texts, typed
from finetune_stages.registration.record import MODEL_DIGEST, ROUND, UID, Record
from finetune_stages.registration.registry import Registry, register
from finetune_stages.registration.rest import Access, Rest
from finetune_stages.registration.versions import Entry, OnExisting
from finetune_stages.sdk import StageError
from model_registry_server import Call, ModelRegistryServer


@pytest.fixture
def rest(server: ModelRegistryServer) -> Iterator[Rest]:
    with Rest(Access(server.url)) as opened:
        yield opened


@pytest.fixture
def registry(rest: Rest) -> Kubeflow:
    return Kubeflow(rest)


def other(record: Record, uid: str, **changes: Any) -> Record:
    return replace(record, identity={**record.identity, UID: uid}, **changes)


def names(server: ModelRegistryServer, model: str = "pydoc-helper") -> list[str]:
    return [version["name"] for version in server.versions(model)]


def succeeds(registry: Kubeflow, record: Record, on_existing: OnExisting) -> bool:
    """Whether it is registered; all that may keep it from that is a registry that does not answer."""
    try:
        register(registry, record, on_existing)
    except StageError as fault:
        if fault.reason is reasons.REGISTRY_UNREACHABLE:
            return False
        raise
    return True


def test_any_call_may_be_lost_before_or_after_it_was_carried_out(
    server: ModelRegistryServer, registry: Kubeflow, record: Record, once: None
) -> None:
    """What a killed program leaves is what a cut connection leaves: the next start knows nothing of the first."""
    for kind in ("refuse", "cut"):
        finished, calls = False, 0
        while not finished:
            server.peace()
            own = other(record, f"{kind}-{calls}", name=f"{kind}-{calls}")
            server.trouble(kind, after=calls)
            finished = succeeds(registry, own, "Fail")
            server.peace()
            assert register(registry, own, "Fail").version == "1.0.0"
            (version,) = server.versions(own.name)
            assert [artifact["uri"] for artifact in server.artifacts(version)] == [own.model_uri]
            assert len([model for model in server.models() if model["name"] == own.name]) == 1
            calls += 1
        assert calls > 10


def test_an_update_may_lose_any_call(server: ModelRegistryServer, registry: Kubeflow, record: Record, once: None) -> None:
    finished, calls = False, 0
    while not finished:
        server.peace()
        old = other(record, "old", name=f"model-{calls}")
        register(registry, old, "Fail")
        new = other(record, "new", name=old.name, model_uri="pvc://claim/new", parameters={"epochs": 3})
        server.peace()
        server.trouble("cut", after=calls)
        finished = succeeds(registry, new, "Update")
        server.peace()
        register(registry, new, "Update")
        (version,) = server.versions(old.name)
        assert version["customProperties"]["epochs"]["int_value"] == "3"
        assert "learningRate" not in version["customProperties"]
        assert [artifact["uri"] for artifact in server.artifacts(version)] == ["pvc://claim/new"]
        calls += 1
    assert calls > 8


@pytest.mark.parametrize("trouble", [{"kind": "status", "status": status} for status in (500, 503, 429)] + [{"kind": "cut"}])
def test_passing_faults_do_not_end_it(
    server: ModelRegistryServer, registry: Kubeflow, record: Record, impatient: None, trouble: dict[str, Any]
) -> None:
    """Every third call fails, to the end."""
    for _ in range(40):
        server.trouble(**trouble, after=2)
    entry = register(registry, record, "Fail")
    assert names(server) == [entry.version] == ["1.0.0"]
    assert len(server.artifacts(server.versions("pydoc-helper")[0])) == 1


def test_a_long_retry_after_is_left_to_the_control_loop(
    server: ModelRegistryServer, registry: Kubeflow, record: Record, impatient: None
) -> None:
    server.trouble("status", status=429, headers={"Retry-After": "3600"}, times=9)
    before = len(server.calls)
    with pytest.raises(StageError, match="status 429") as raised:
        register(registry, record, "Fail")
    assert (raised.value.reason.name, len(server.calls) - before) == ("RegistryUnreachable", 1)


@pytest.mark.parametrize("trouble", [{"kind": "slow", "seconds": 1.5}, {"kind": "trickle", "seconds": 0.05}])
def test_no_call_takes_longer_than_its_deadline(
    server: ModelRegistryServer, monkeypatch: pytest.MonkeyPatch, once: None, trouble: dict[str, Any]
) -> None:
    """Neither where nothing comes, nor where something comes all the time."""
    monkeypatch.setattr(rest_module, "CALL_SECONDS", 0.5)
    server.trouble(**trouble)
    started = time.monotonic()
    with Rest(Access(server.url)) as hasty, pytest.raises(StageError, match="is unreachable") as raised:
        hasty.get("/api/model_registry/v1/registered_models", pageSize=1)
    assert raised.value.reason is reasons.REGISTRY_UNREACHABLE
    assert time.monotonic() - started < 1.4


def test_a_name_is_not_a_pattern(server: ModelRegistryServer, registry: Kubeflow, record: Record) -> None:
    """The server compares with LIKE: it finds fine-tuned and finestuned for fine_tuned, and answers 404 where it finds both."""
    for number, name in enumerate(("fine-tuned", "fine_tuned", "finestuned")):
        register(registry, other(record, f"{number}", name=name), "Fail")
    assert [model["name"] for model in server.models()] == ["fine-tuned", "fine_tuned", "finestuned"]
    assert [names(server, model["name"]) for model in server.models()] == [["1.0.0"]] * 3
    assert [entry.version for entry in registry.entries("fine_tuned", "")] == ["1.0.0"]
    assert registry.entries("fine%", "") == []


def test_lists_are_read_to_their_end(
    server: ModelRegistryServer, registry: Kubeflow, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeflow_module, "_PAGE", 2)
    made = [register(registry, other(record, f"run-{number}"), "NewVersion").version for number in range(5)]
    assert made == ["1.0.0", "1.0.1", "1.0.2", "1.0.3", "1.0.4"]
    with pytest.raises(StageError, match="already"):
        register(registry, other(record, "late", version="1.0.3"), "Fail")


def test_a_version_that_is_taken_meanwhile_is_left_to_who_was_first(
    server: ModelRegistryServer, registry: Kubeflow, record: Record
) -> None:
    class Raced(Kubeflow):
        raced = False

        def create(self, record: Record, version: str) -> None:
            if not self.raced:
                self.raced = True
                register(registry, other(record, "first"), "Fail")
            super().create(record, version)

    with Rest(Access(server.url)) as rest:
        assert register(Raced(rest), record, "NewVersion").version == "1.0.1"
        with pytest.raises(StageError, match=r"1\.0\.0 already exists"):
            register(registry, other(record, "third"), "Fail")


def test_a_name_that_is_taken_but_not_listed_ends(server: ModelRegistryServer, rest: Rest, record: Record) -> None:
    """MySQL compares unique names without case."""

    class Blind(Kubeflow):
        def versions(self, record: Record) -> list[Entry]:
            return []

    registry: Registry = Kubeflow(rest)
    register(registry, record, "Fail")
    with pytest.raises(StageError, match="but does not list it, possibly in other case") as raised:
        register(Blind(rest), other(record, "second"), "NewVersion")
    assert raised.value.reason.name == "RegistryRejected"


def test_what_an_earlier_round_left_without_its_model_is_completed(
    server: ModelRegistryServer, registry: Kubeflow, record: Record, once: None
) -> None:
    server.trouble("status", text="/artifacts", status=500, after=2)
    with pytest.raises(StageError):
        register(registry, record, "Fail")
    assert server.writes()[-1].endswith("/artifacts")
    assert [entry.complete for entry in registry.versions(record)] == [False]
    again = replace(record, identity={**record.identity, ROUND: "2", MODEL_DIGEST: "2" * 64})
    assert register(registry, again, "Fail").version == "1.0.0"
    (version,) = server.versions("pydoc-helper")
    assert version["customProperties"][ROUND]["string_value"] == "2"
    assert len(server.artifacts(version)) == 1
    with pytest.raises(StageError, match="already"):  # complete by now: another round of the same model is another record
        register(registry, replace(record, identity={**record.identity, ROUND: "3"}), "Fail")


def test_an_update_keeps_what_people_added(server: ModelRegistryServer, registry: Kubeflow, rest: Rest, record: Record) -> None:
    entry = register(registry, record, "Fail")
    (version,) = server.versions("pydoc-helper")
    properties = {**version["customProperties"], "reviewed by": typed("Grace"), "a label": typed("")}
    rest.call("PATCH", f"/api/model_registry/v1/model_versions/{entry.key}", {"customProperties": properties})
    new = other(record, "new", parameters={"epochs": 5}, points=())
    assert register(registry, new, "Update").key == entry.key
    found = server.versions("pydoc-helper")[0]["customProperties"]
    assert (texts(found)["reviewed by"], texts(found)["a label"]) == ("Grace", "")
    assert set(found) - {"reviewed by", "a label"} == set(of_record(new))


def test_what_comes_back_otherwise_fails(server: ModelRegistryServer, rest: Rest, record: Record) -> None:
    class Forgetful(ModelRegistryServer):
        def answer(self, call: Call) -> Any:
            answer = super().answer(call)
            return replace(answer, body=answer.body.replace(b"pytorch", b"onnx")) if call.method == "GET" else answer

    with Forgetful() as server, Rest(Access(server.url)) as rest, pytest.raises(StageError) as raised:
        register(Kubeflow(rest), record, "Fail")
    assert raised.value.reason.name == "ReadBackFailed"
    assert "URI, format or source" in raised.value.message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2, {"metadataType": "MetadataIntValue", "int_value": "2"}),
        (-999_999_999, {"metadataType": "MetadataIntValue", "int_value": "-999999999"}),
        (5_000_000_000, {"metadataType": "MetadataDoubleValue", "double_value": 5e9}),
        (2**53 + 1, {"metadataType": "MetadataStringValue", "string_value": "9007199254740993"}),
        (1e-4, {"metadataType": "MetadataDoubleValue", "double_value": 1e-4}),
        (float("inf"), {"metadataType": "MetadataStringValue", "string_value": "inf"}),
        (True, {"metadataType": "MetadataStringValue", "string_value": "true"}),
        ("cosine", {"metadataType": "MetadataStringValue", "string_value": "cosine"}),
    ],
)
def test_typed_values(value: Any, expected: dict[str, Any]) -> None:
    assert typed(value) == expected


def test_properties_of_a_record(record: Record) -> None:
    record = replace(record, parameters={"epochs": 2, "empty": "", "training.loss": 9.0}, gate="passed")
    found = of_record(record)
    assert found["training.loss"]["double_value"] == 2.1  # the metric; the parameter of the same name has a prefix
    assert found["parameter.training.loss"]["double_value"] == 9.0
    assert "empty" not in found  # a text without content is a label
    assert texts(found)["finetunerun.io/gate"] == "passed"
    assert texts(found)[MODEL_DIGEST] == record.identity[MODEL_DIGEST]
    assert replaced(found, {}) == {}
    assert replaced({**found, OURS: typed("[broken")}, {}).keys() == {
        key for key in found if not key.startswith("finetunerun.io/")
    }
