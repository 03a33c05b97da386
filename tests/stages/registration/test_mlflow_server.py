"""Registration in a real MLflow server over HTTP: entries, lost calls, kill -9, rejections."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune_contract import reasons
from finetune_contract.documents import RegistryCheckInputs, RunInfo
from finetune_stages.registration import mlflow_server as program_module
from finetune_stages.registration.mlflow_registry import MLflow
from finetune_stages.registration.mlflow_server import Translated
from finetune_stages.registration.record import LOSS, UID, Record
from finetune_stages.registration.registry import register
from finetune_stages.registration.rest import Access
from finetune_stages.sdk import StageError
from model_registry_server import TroubledServer
from web_server import Answer, FileServer, Request

from .conftest import CURVE, stage_inputs, write_results
from .mlflow_process import BeforeMLflow, MLflowProcess

CHECK = [sys.executable, "-m", "finetune_stages.registration"]
TOKEN = "token-of-the-server"


@pytest.fixture(scope="module")
def mlflow_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with MLflowProcess(tmp_path_factory.mktemp("mlflow")) as process:
        yield process.port


@pytest.fixture
def mlflow(mlflow_port: int) -> Iterator[BeforeMLflow]:
    with BeforeMLflow(mlflow_port) as server:
        yield server


@pytest.fixture
def client(mlflow: BeforeMLflow, mlflow_client: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's client with the program's settings."""
    for name, value in program_module._environment(Access(mlflow.url)).items():
        monkeypatch.setenv(name, value)
    return mlflow_client(tracking_uri=mlflow.url, registry_uri=mlflow.url)


def test_the_client_follows_no_redirect(mlflow_client: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mlflow.exceptions import MlflowException

    with FileServer(tmp_path) as elsewhere:

        class Moved(FileServer):
            def answer(self, request: Request, body: bytes) -> Answer:
                return Answer(302, {"Location": f"{elsewhere.url}{request.path}"})

        with Moved(tmp_path) as server:
            for name, value in program_module._environment(Access(server.url, TOKEN)).items():
                monkeypatch.setenv(name, value)
            with pytest.raises(MlflowException):
                mlflow_client(tracking_uri=server.url, registry_uri=server.url).search_registered_models()
            assert [request.headers["authorization"] for request in server.requests] == [f"Bearer {TOKEN}"]
        assert elsewhere.requests == []


def versions(client: Any, name: str) -> list[Any]:
    return sorted(client.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))


def runs(client: Any, uid: str) -> list[Any]:
    experiment = client.get_experiment_by_name("finetune")
    return list(client.search_runs([experiment.experiment_id], f"tags.`{UID}` = '{uid}'"))


def to(server: TroubledServer, results: dict[str, str], **changes: Any) -> Any:
    return stage_inputs(results, address=server.url, model_uri="pvc://claim/final_model", **changes)


def test_over_tls_with_a_token(programs: Any, results: dict[str, str], mlflow_port: int, client: Any, certificate: Path) -> None:
    with BeforeMLflow(mlflow_port, TOKEN, certificate) as secured:
        environment = {"REGISTRY_TOKEN": f"{TOKEN}\n", "FINETUNE_REGISTRY_CA": str(certificate)}
        inputs = to(secured, results, name="secured")
        ended = programs("registration", inputs, environment=environment)
        assert ended.code == 0, ended.errors
        calls = len(secured.calls)
        again = programs("registration", inputs, environment=environment, attempt="1.2")
        assert (again.code, len(secured.calls) - calls) == (0, 1)
        refused = programs("registration", inputs, environment={**environment, "REGISTRY_TOKEN": "another-token"}, attempt="1.3")
        check = RegistryCheckInputs("MLflow", "secured", "1.0.0", secured.url)
        taken = programs("registry-check", check, command=CHECK, environment=environment)
    (version,) = versions(client, "secured")
    assert ended.result.outputs == {
        "kind": "MLflow", "name": "secured", "version": "1.0.0", "registryVersion": "1", "readBack": True, "runId": version.run_id,
        "modelUri": "pvc://claim/final_model", "url": f"{secured.url}/#/models/secured/versions/1",
    }  # fmt: skip
    assert (version.source, version.tags["version"], version.tags["author"]) == ("pvc://claim/final_model", "1.0.0", "Ada")
    assert len(client.get_metric_history(version.run_id, LOSS)) == len(CURVE)
    assert client.get_model_version_by_alias("secured", "champion").version == version.version
    assert not programs.path("mlflow.db").exists()
    assert (refused.code, refused.reason) == (65, "RegistryForbidden")
    assert (taken.code, taken.reason) == (65, "VersionExists")
    for end in (ended, again, refused, taken):
        assert TOKEN not in end.output + end.errors + end.message
        assert "Traceback" not in end.output + end.errors


def test_any_call_may_be_lost_after_it_was_carried_out(mlflow: BeforeMLflow, client: Any, record: Record, once: None) -> None:
    finished, calls = False, 0
    while not finished:
        calls += 1
        own = replace(record, name=f"model-{calls}", model_uri="s3://bucket/model", identity={**record.identity, UID: f"{calls}"})
        registry = MLflow(Translated(client, mlflow.url))
        mlflow.trouble("cut", after=calls - 1)
        try:
            register(registry, own, "Fail")
            finished = True
        except StageError as fault:
            if fault.reason is not reasons.REGISTRY_UNREACHABLE:
                raise
        mlflow.peace()
        entry = register(registry, own, "Fail")
        (version,), (run,) = versions(client, own.name), runs(client, f"{calls}")
        assert (entry.version, version.run_id, run.info.status) == ("1.0.0", run.info.run_id, "FINISHED")
        assert str(client.get_model_version_by_alias(own.name, "champion").version) == "1"
    assert calls > 15


@pytest.mark.parametrize("trouble", [{"kind": "cut"}, {"kind": "status", "status": 503}, {"kind": "status", "status": 429}])
def test_passing_faults_do_not_end_it(
    mlflow: BeforeMLflow, client: Any, record: Record, impatient: None, trouble: dict[str, Any]
) -> None:
    """A call in five fails, to the end; nothing is made twice."""
    own = replace(record, name=f"patient-{trouble.get('status')}", model_uri="s3://bucket/model",
                  identity={**record.identity, UID: f"{trouble}".replace("'", "")})  # fmt: skip
    draw = random.Random(3)
    for _ in range(40):
        mlflow.trouble(**trouble, after=draw.randint(2, 6))
    assert register(MLflow(Translated(client, mlflow.url)), own, "Fail").version == "1.0.0"
    mlflow.peace()
    assert (len(versions(client, own.name)), len(runs(client, own.identity[UID]))) == (1, 1)


def test_killed_right_after_each_thing_was_made(programs: Any, mlflow: BeforeMLflow, client: Any) -> None:
    """The program itself, killed when the run, the model and the version had been made, and before it received the answer."""
    programs.run = RunInfo("killed", "team-a", "feedfeedfeedfeed")
    results = write_results(programs.workspace, programs.layout.root)
    for number, made in enumerate(("runs/create", "registered-models/create", "model-versions/create")):
        mlflow.peace()
        inputs = to(mlflow, results, name=f"killed-{number}")
        running = programs.start("registration", inputs, attempt=f"1.{2 * number + 1}")
        mlflow.trouble("call", text=made, then=lambda pid=running.process.pid: os.kill(pid, signal.SIGKILL))
        assert running.wait().code == -signal.SIGKILL
        mlflow.peace()
        ended = programs("registration", inputs, attempt=f"1.{2 * number + 2}")
        assert ended.code == 0, ended.errors
        (version,) = versions(client, inputs.name)
        assert (version.tags["version"], version.run_id) == ("1.0.0", ended.result.outputs["runId"])
    assert len(runs(client, programs.run.uid)) == 1  # one run of one identity, whatever it is registered as


@pytest.mark.parametrize(
    ("trouble", "reason", "words"),
    [
        ({"kind": "status", "status": 401}, "RegistryForbidden", "check the token in registry.secretRef"),
        ({"kind": "status", "status": 403}, "RegistryForbidden", "check the token in registry.secretRef"),
        ({"kind": "status", "status": 404}, "RegistryRejected", "rejected the entry"),
        ({"kind": "status", "status": 500}, "RegistryUnreachable", "is unreachable or sent an invalid response"),
        ({"kind": "html"}, "RegistryRejected", "a page instead of JSON"),
        ({"kind": "refuse"}, "RegistryUnreachable", "is unreachable or sent an invalid response"),
    ],
    ids=["401", "403", "404", "500", "html", "cut"],
)
def test_an_error_in_the_middle_of_a_registration_is_one_sentence(
    mlflow: BeforeMLflow, client: Any, record: Record, impatient: None, trouble: dict[str, Any], reason: str, words: str
) -> None:
    mlflow.trouble(**trouble, after=2, times=99)
    with pytest.raises(StageError) as raised:
        register(MLflow(Translated(client, mlflow.url)), replace(record, name="half"), "Fail")
    assert raised.value.reason.name == reason
    assert words in raised.value.message
    assert "\n" not in raised.value.message


def test_a_path_of_another_machine_is_rejected(programs: Any, results: dict[str, str], mlflow: BeforeMLflow) -> None:
    ended = programs("registration", stage_inputs(results, address=mlflow.url, name="local"))
    assert (ended.code, ended.reason) == (65, "RegistryRejected"), ended.errors
    assert "Invalid model version source: '/data/final_model'" in ended.result.message
    assert "Traceback" not in ended.errors
