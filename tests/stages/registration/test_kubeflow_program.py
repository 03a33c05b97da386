"""The program of stage *registration* against Model Registry: what is there in the end, kill -9 at every call, and bad input."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.codec import encode
from finetune_contract.documents import RegistryCheckInputs, RunInfo, StageDocument
from finetune_contract.workspace import Attempt
from finetune_stages.registration.stage import check
from finetune_stages.sdk import Context, Finished, StageError
from model_registry_server import ModelRegistryServer
from web_server import unused_port

from .conftest import BASE, CURVE, DATA, ENGINE, MODEL, stage_inputs, write_results

CHECK = [sys.executable, "-m", "finetune_stages.registration"]
TOKEN = "token-of-the-registry"


def to(server: ModelRegistryServer, results: dict[str, str], **changes: Any) -> Any:
    """Inputs that register in ``server``."""
    return stage_inputs(results, kind="ModelRegistry", address=server.url, model_uri="pvc://claim/final_model", **changes)


def test_everything_known_of_the_model_is_in_the_registry(
    programs: Any, results: dict[str, str], server: ModelRegistryServer
) -> None:
    ended = programs("registration", to(server, results, description="Answers questions."))
    assert ended.code == 0, ended.errors
    (model,), (version,) = server.models(), server.versions("pydoc-helper")
    (artifact,) = server.artifacts(version)
    assert ended.result.outputs == {
        "kind": "ModelRegistry", "name": "pydoc-helper", "version": "1.0.0", "registryVersion": version["id"], "readBack": True,
        "modelUri": "pvc://claim/final_model", "url": f"{server.url}/api/model_registry/v1/model_versions/{version['id']}",
    }  # fmt: skip
    assert (model["name"], model["owner"]) == ("pydoc-helper", "Ada")
    assert model["customProperties"] == {"alias.champion": {"metadataType": "MetadataStringValue", "string_value": "1.0.0"}}
    assert (version["name"], version["author"], version["description"], version["state"]) == (
        "1.0.0", "Ada", "Answers questions.", "LIVE",
    )  # fmt: skip
    found = {key: value for key, value in version["customProperties"].items() if key != "finetunerun.io/properties"}
    assert {key: next(iter(value[name] for name in value if name != "metadataType")) for key, value in found.items()} == {
        "epochs": "2", "learningRate": 1e-4, "liger": "false", "scheduler": "cosine",
        "loss": CURVE[-1].loss, "training.loss": 2.1, "training.seconds": 50.0, "holdout.bits_per_byte": 1.7, "quiz.acc": 0.5,
        "evaluation.seconds": 9.0, "baseline.holdout.bits_per_byte": 2.2, "baseline.seconds": 8.0,
        "finetunerun.io/run": "demo", "finetunerun.io/namespace": "team-a", "finetunerun.io/uid": "0123456789abcdef",
        "finetunerun.io/round": "1", "finetunerun.io/experiment": "finetune", "finetunerun.io/model-digest": MODEL,
        "finetunerun.io/base-model-digest": BASE, "finetunerun.io/dataset-digest": DATA,
        **ENGINE, **{f"finetunerun.io/{stage}-inputs-digest": str(number) * 64 for number, stage in enumerate(results)},
    }  # fmt: skip
    wanted = {
        "name": "pydoc-helper", "artifactType": "model-artifact", "uri": "pvc://claim/final_model", "modelFormatName": "pytorch",
        "modelFormatVersion": "1.0", "modelSourceKind": "finetunerun.io", "modelSourceClass": "FineTuneRun",
        "modelSourceGroup": "team-a", "modelSourceId": "0123456789abcdef", "modelSourceName": "demo",
    }  # fmt: skip
    assert wanted.items() <= artifact.items()
    assert not programs.path("mlflow.db").exists()


def test_a_second_start_asks_one_question(programs: Any, results: dict[str, str], server: ModelRegistryServer) -> None:
    first = programs("registration", to(server, results))
    server.peace()
    again = programs("registration", to(server, results), attempt="1.2")
    assert (again.code, again.result.outputs) == (0, first.result.outputs)
    assert [(call.method, call.path) for call in server.calls] == [("GET", first.result.outputs["url"].removeprefix(server.url))]
    server.trouble("status", status=404)  # gone, as far as it knows: it registers, and finds its own
    third = programs("registration", to(server, results), attempt="1.3")
    assert third.result.outputs == first.result.outputs
    assert len(server.versions("pydoc-helper")) == 1


def test_killed_at_any_call_the_next_attempt_completes_it(programs: Any, results: dict[str, str]) -> None:
    ended, calls = None, 0
    while ended is None:
        with ModelRegistryServer(("v1alpha3",)) as server:
            inputs = to(server, results)
            running = programs.start("registration", inputs, attempt=f"1.{2 * calls + 1}")
            server.trouble("call", after=calls, then=lambda pid=running.process.pid: os.kill(pid, signal.SIGKILL))
            first = running.wait()
            server.peace()
            assert first.code in (0, -signal.SIGKILL), first.errors
            ended = first if first.code == 0 else None
            last = programs("registration", inputs, attempt=f"1.{2 * calls + 2}")
            assert last.code == 0, last.errors
            (version,) = server.versions("pydoc-helper")
            assert (version["name"], len(server.artifacts(version)), len(server.models())) == ("1.0.0", 1, 1)
            assert server.models()[0]["customProperties"]["alias.champion"]["string_value"] == "1.0.0"
        calls += 1
    assert calls > 10


def test_two_runs_at_the_same_time(programs: Any, results: dict[str, str], server: ModelRegistryServer) -> None:
    first = programs.start("registration", to(server, results))
    programs.run = RunInfo("other", "team-a", "fedcba9876543210")
    second = programs.start("registration", to(server, write_results(programs.workspace, programs.layout.root)))
    both = [running.wait() for running in (first, second)]
    assert [ended.code for ended in both] == [0, 0], [ended.errors for ended in both]
    assert sorted(version["name"] for version in server.versions("pydoc-helper")) == ["1.0.0", "1.0.1"]
    assert len(server.models()) == 1


def test_a_rejected_model_is_put_aside(programs: Any, results: dict[str, str], server: ModelRegistryServer) -> None:
    ended = programs("registration", to(server, results), environment={"FINETUNE_GATE": "Rejected"})
    assert ended.code == 0, ended.errors
    (version,) = server.versions("pydoc-helper")
    assert version["state"] == "ARCHIVED"
    assert version["customProperties"]["finetunerun.io/gate"]["string_value"] == "rejected"
    assert server.models()[0]["customProperties"] == {}  # no alias
    assert ended.result.message.endswith("rejected")


def test_token_and_certificate_are_used_and_never_shown(programs: Any, results: dict[str, str], certificate: Path) -> None:
    with ModelRegistryServer(token=TOKEN, certificate=certificate) as server:
        environment = {"REGISTRY_TOKEN": f"{TOKEN}\n", "FINETUNE_REGISTRY_CA": str(certificate)}
        ended = programs("registration", to(server, results), environment=environment)
        assert ended.code == 0, ended.errors
        refused = programs("registration", to(server, results), environment={**environment, "REGISTRY_TOKEN": "another-token"})
        untrusted = programs("registration", to(server, results), environment={"REGISTRY_TOKEN": TOKEN})
    assert (refused.code, refused.reason) == (65, "RegistryForbidden")
    assert (untrusted.code, untrusted.reason) == (65, "RegistryUntrusted")
    assert "self-signed certificate" in untrusted.result.message
    for end in (ended, refused, untrusted):
        assert TOKEN not in end.output + end.errors + end.message
        assert "another-token" not in end.output + end.errors + end.message
        assert "Traceback" not in end.output + end.errors
    assert TOKEN not in "".join(path.read_text() for path in programs.workspace.rglob("*.log"))


def test_a_registry_that_is_down_is_retried_later(programs: Any, results: dict[str, str]) -> None:
    inputs = stage_inputs(
        results, kind="ModelRegistry", address=f"http://127.0.0.1:{unused_port()}", model_uri="s3://bucket/model"
    )
    ended = programs("registration", inputs)
    assert (ended.code, ended.reason) == (75, "RegistryUnreachable"), ended.errors
    assert "is unreachable" in ended.result.message
    assert "Traceback" not in ended.errors


def test_the_check_before_training(programs: Any, results: dict[str, str], server: ModelRegistryServer) -> None:
    inputs = RegistryCheckInputs("ModelRegistry", "pydoc-helper", "1.0.0", server.url)
    free = programs("registry-check", inputs, command=CHECK)
    assert (free.code, free.result.outputs) == (
        0, {"kind": "ModelRegistry", "name": "pydoc-helper", "version": "1.0.0", "free": True},
    )  # fmt: skip
    assert server.writes() == []
    assert programs("registration", to(server, results)).code == 0
    taken = programs("registry-check", inputs, command=CHECK, attempt="1.2")  # asked again, though the inputs are the same
    assert (taken.code, taken.reason) == (65, "VersionExists")
    assert "pydoc-helper 1.0.0 already exists (registered by FineTuneRun team-a/demo)" in taken.result.message


@pytest.fixture
def ask(tmp_path: Path, impatient: None) -> Callable[..., Finished]:
    """The check, in this process: its calls are the first that any registry gets."""

    def asked(address: str, kind: Any = "ModelRegistry") -> Finished:
        inputs = RegistryCheckInputs(kind, "pydoc-helper", "1.0.0", address)
        document = StageDocument(2, "registry-check", RunInfo("demo", "team-a", "01234567"), encode(inputs))
        return check(Context(document, tmp_path, Attempt(1, 1), "0" * 64))

    return asked


@pytest.fixture(params=["ModelRegistry", "MLflow"])
def kind(request: pytest.FixtureRequest) -> Iterator[Any]:
    return request.param


@pytest.mark.parametrize(
    ("trouble", "reason", "words"),
    [
        ({"kind": "status", "status": 401}, "RegistryForbidden", "add REGISTRY_TOKEN to the Secret in registry.secretRef"),
        ({"kind": "status", "status": 403}, "RegistryForbidden", "status 403"),
        ({"kind": "status", "status": 404}, "RegistryRejected", "registry.address"),
        ({"kind": "status", "status": 400}, "RegistryRejected", "status 400 (so it was ordered)"),
        ({"kind": "status", "status": 500}, "RegistryUnreachable", "responded with status 500 (so it was ordered)"),
        ({"kind": "html"}, "RegistryRejected", "responds with text/html instead of JSON"),
        ({"kind": "redirect"}, "RegistryRejected", "redirects (login.example)"),
        ({"kind": "refuse"}, "RegistryUnreachable", "is unreachable"),
    ],
    ids=["401", "403", "404", "400", "500", "html", "redirect", "cut"],
)
def test_every_rejection_is_one_sentence(
    ask: Any, server: ModelRegistryServer, kind: Any, trouble: dict[str, Any], reason: str, words: str
) -> None:
    server.trouble(**trouble, times=99)
    with pytest.raises(StageError) as raised:
        ask(server.url, kind)
    assert raised.value.reason.name == reason
    assert words in raised.value.message
    assert "hidden" not in raised.value.message


def test_either_release_of_the_api_is_found(ask: Any) -> None:
    for serves in (("v1",), ("v1alpha3",), ("v1", "v1alpha3")):
        with ModelRegistryServer(serves) as server:
            assert ask(server.url).outputs.free
            assert f"/{serves[0]}/" in server.calls[-1].path
    with ModelRegistryServer(("v1alpha3",)) as server:
        server.trouble("html")  # the answer of a web page's router to an unknown path
        assert ask(server.url).outputs.free
    with ModelRegistryServer(("v9",)) as server, pytest.raises(StageError, match="does not serve a Model Registry"):
        ask(server.url)


@pytest.mark.parametrize(
    ("address", "environment", "reason", "words"),
    [
        ("ftp://registry:8080", {}, "RegistryRejected", "ftp://registry:8080 is not a web address"),
        ("http://127.0.0.1:x", {}, "RegistryRejected", "is not a web address"),
        ("https://127.0.0.1:{port}", {}, "RegistryUnreachable", "is unreachable"),
        (
            "http://127.0.0.1:{port}",
            {"REGISTRY_TOKEN": "two words"},
            "RegistryForbidden",
            "characters that are invalid in a token",
        ),
        ("http://127.0.0.1:{port}", {"FINETUNE_REGISTRY_CA": "/nowhere.pem"}, "RegistryUntrusted", "/nowhere.pem has no"),
        ("http://127.0.0.1:{port}", {"FINETUNE_REGISTRY_CA": __file__}, "RegistryUntrusted", "no certificates in PEM form"),
    ],
    ids=["scheme", "port", "no TLS there", "token", "no bundle", "no PEM"],
)
def test_what_cannot_be_used_is_named(
    ask: Any, server: ModelRegistryServer, monkeypatch: pytest.MonkeyPatch, address: str, environment: dict[str, str], reason: str,
    words: str,
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StageError) as raised:
        ask(address.format(port=server.url.rpartition(":")[2]))
    assert raised.value.reason.name == reason
    assert words in raised.value.message


def test_a_registry_without_address_is_rejected(ask: Any) -> None:
    with pytest.raises(StageError, match=r"registry\.address: it is missing, and kind ModelRegistry requires it"):
        ask(None)
