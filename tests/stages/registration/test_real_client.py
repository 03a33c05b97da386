"""The real ``model-registry`` client and ours read, and complete, what the other one wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model_registry_server import ModelRegistryServer

from .conftest import MODEL, stage_inputs

PROGRAM = Path(__file__).with_name("real_client.py")


def real(server: ModelRegistryServer, action: str, fails: bool = False, **arguments: Any) -> Any:
    """What the real client prints; its last line of errors where it is to fail."""
    command = [sys.executable, "-W", "ignore", str(PROGRAM), server.url, action, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr.strip().splitlines()[-1] if fails else json.loads(done.stdout)


def to(server: ModelRegistryServer, results: dict[str, str], **changes: Any) -> Any:
    return stage_inputs(results, kind="ModelRegistry", address=server.url, model_uri="pvc://claim/final_model", **changes)


def test_the_real_client_reads_what_we_register(programs: Any, results: dict[str, str], server: ModelRegistryServer) -> None:
    assert programs("registration", to(server, results)).code == 0
    found = real(server, "read", name="pydoc-helper", version="1.0.0")
    assert (found["model"]["owner"], found["version"]["author"], found["versions"]) == ("Ada", "Ada", ["1.0.0"])
    artifact = {key: found["artifact"][key] for key in ("name", "uri", "model_format_name", "model_source_id", "state")}
    assert artifact == {
        "name": "pydoc-helper", "uri": "pvc://claim/final_model", "model_format_name": "pytorch",
        "model_source_id": "0123456789abcdef", "state": "LIVE",
    }  # fmt: skip
    properties = found["version"]["custom_properties"]
    assert {key: properties[key] for key in ("epochs", "learningRate", "liger", "quiz.acc", "finetunerun.io/model-digest")} == {
        "epochs": 2, "learningRate": 1e-4, "liger": "false", "quiz.acc": 0.5, "finetunerun.io/model-digest": MODEL,
    }  # fmt: skip


def test_the_real_client_and_we_register_side_by_side(
    programs: Any, results: dict[str, str], server: ModelRegistryServer
) -> None:
    real(server, "register", name="pydoc-helper", uri="s3://bucket/theirs", version="1.0.0", metadata={"accuracy": 0.5})
    refused = programs("registration", to(server, results, on_existing="Fail"))
    assert refused.reason == "VersionExists"
    ours = programs("registration", to(server, results))
    assert (ours.code, ours.result.outputs["version"]) == (0, "1.0.1")
    said = real(server, "register", fails=True, name="pydoc-helper", uri="s3://bucket/theirs", version="1.0.1")
    assert "Version 1.0.1 already exists" in said
    real(server, "register", name="pydoc-helper", uri="s3://bucket/theirs", version="1.0.2")
    found = real(server, "read", name="pydoc-helper", version="1.0.1")
    assert (found["artifact"]["uri"], found["versions"]) == ("pvc://claim/final_model", ["1.0.0", "1.0.1", "1.0.2"])


@pytest.mark.parametrize("cut_after", ["model", "version"])
def test_what_the_real_client_left_half_done(
    programs: Any, results: dict[str, str], server: ModelRegistryServer, cut_after: str
) -> None:
    """It makes model, version and artifact one after the other, and finds its own half a failure ever after."""
    server.trouble("status", status=500, after={"model": 3, "version": 5}[cut_after], times=9)
    real(server, "register", fails=True, name="pydoc-helper", uri="s3://bucket/theirs", version="1.0.0")
    assert len(server.models()) == 1
    server.peace()
    half = cut_after == "version"
    assert [server.artifacts(version) for version in server.versions("pydoc-helper")] == [[]] * half
    updated = programs("registration", to(server, results, on_existing="Update"))
    assert (updated.code, updated.result.outputs["version"]) == (0, "1.0.0"), updated.errors
    found = real(server, "read", name="pydoc-helper", version="1.0.0")
    assert (found["artifact"]["uri"], found["versions"]) == ("pvc://claim/final_model", ["1.0.0"])
