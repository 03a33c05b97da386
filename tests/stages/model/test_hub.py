"""Models of a hub, fetched by the real library from a real server."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sys

import pytest

from finetune_contract.documents import ModelInputs, RunInfo
from restricted import in_a_small_volume
from web_server import unused_port, wait_until

PROGRAM = [sys.executable, "-m", "finetune_stages.model"]
TOKEN = "hf_this_is_a_secret_token"


def test_a_hub_model_that_does_not_fit_is_not_even_fetched(run_stage_program, stage, hub, tiny_model, tmp_path):
    hub.add("model", "org/tiny", tiny_model)
    inputs = ModelInputs("org/tiny")
    command = in_a_small_volume(PROGRAM, run_stage_program.workspace, 62_000, tmp_path / "left.txt")
    ended = run_stage_program("model", inputs, command=command, environment={"HF_ENDPOINT": hub.url})
    assert (ended.code, ended.reason) == (65, "WorkspaceFull"), ended.errors
    assert re.search(r"org/tiny: it needs 6\d MB, and the workspace has 6\d MB free; raise storage.size", ended.result.message)
    assert stage.fetched_weights() == []
    assert "download" not in (tmp_path / "left.txt").read_text()


def test_a_hub_model_is_fetched_once_and_only_what_is_needed(stage, hub, model):
    (model / "pytorch_model.bin").write_bytes(b"0" * 1000)
    (model / "consolidated.safetensors").write_bytes(b"0" * 1000)
    (model / "onnx").mkdir()
    (model / "onnx" / "model.onnx").write_bytes(b"0" * 1000)
    commit = hub.add("model", "org/tiny", model)
    first = stage("org/tiny")
    assert first.code == 0, first.errors
    assert first.result.outputs["revision"] == commit
    entry = stage.linked()
    names = {"README.md", "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert {path.name for path in entry.iterdir()} == {*names, "tokenizer_config.json", ".finetune.json"}
    assert all((entry / name).read_bytes() == (model / name).read_bytes() for name in names)
    assert all(path.stat().st_mode & 0o777 == 0o664 for path in entry.iterdir())
    assert stage.nothing_is_left()
    hub.requests.clear()
    stage.as_another_run()
    second = stage("hf://org/tiny")
    assert second.result.reused
    assert second.result.outputs == first.result.outputs
    assert len(hub.requests) == 1
    assert stage.linked() == entry


def test_a_sharded_hub_model(stage, hub, sharded):
    hub.add("model", "org/sharded", sharded)
    ended = stage("org/sharded")
    assert ended.code == 0, ended.errors
    assert sorted(stage.fetched_weights()) == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def test_a_damaged_cache_entry_is_made_again(stage, hub, tiny_model):
    hub.add("model", "org/tiny", tiny_model)
    stage("org/tiny")
    weights = stage.linked() / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    stage.as_another_run()
    ended = stage("org/tiny")
    assert ended.code == 0, ended.errors
    assert not ended.result.reused
    assert (stage.linked() / "model.safetensors").read_bytes() == (tiny_model / "model.safetensors").read_bytes()


def test_a_commit_in_the_cache_needs_no_hub(stage, hub, tiny_model):
    commit = hub.add("model", "org/tiny", tiny_model)
    stage("org/tiny")
    nobody = f"http://127.0.0.1:{unused_port()}"
    stage.as_another_run()
    ended = stage("org/tiny", revision=commit, endpoint=nobody)
    assert ended.code == 0, ended.errors
    assert ended.result.reused
    for revision in (None, "main", "0" * 40):
        ended = stage("org/tiny", revision=revision, endpoint=nobody)
        assert (ended.code, ended.reason) == (75, "ModelUnreachable")
        assert nobody in ended.result.message


def test_revisions(stage, hub, model):
    old = hub.add("model", "org/tiny", model, revision="v1")
    (model / "README.md").write_text("new")
    new = hub.add("model", "org/tiny", model)
    for revision, commit in (("v1", old), (old, old), (None, new)):
        ended = stage("org/tiny", revision=revision)
        assert ended.result.outputs["revision"] == commit
    ended = stage("org/tiny", revision="v9")
    assert (ended.code, ended.reason) == (65, "ModelNotFound")
    assert ended.result.message == "Model org/tiny: it has no revision v9; correct the revision."


def test_what_cannot_be_trained_is_found_before_the_weights_are_fetched(stage, hub, model):
    (model / "chat_template.jinja").unlink()
    hub.add("model", "org/base", model)
    ended = stage("org/base")
    assert (ended.code, ended.reason) == (65, "ChatTemplateMissing")
    assert stage.fetched_weights() == []
    assert stage.nothing_is_left()
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    hub.add("model", "org/pickle", model)
    assert stage("org/pickle").reason == "ChatTemplateMissing"


def test_code_of_a_model_in_the_cache_is_asked_for_again(run_stage_program, stage, hub, model):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "modeling_x.X"}}))
    (model / "modeling_x.py").write_text("class X: pass")
    hub.add("model", "org/code", model)
    assert stage("org/code").reason == "RemoteCode"
    assert stage("org/code", trust_remote_code=True).code == 0
    assert (stage.linked() / "modeling_x.py").is_file()
    stage.as_another_run()
    ended = stage("org/code")
    assert (ended.code, ended.reason) == (65, "RemoteCode")
    assert not run_stage_program.path(run_stage_program.layout.base_model).exists()


@pytest.mark.parametrize(
    ("access", "token", "words"),
    [
        ({"gated": True}, None, "Model org/closed: it is gated; accept its terms on its hub page and set HF_TOKEN to a token"),
        ({"gated": True}, "hf_another", "check that the owner of the token in HF_TOKEN may read it"),
        ({"private": True}, None, "is private or does not exist on"),
        ({}, "hf_made_up_token", "does not accept the token in HF_TOKEN; renew it."),
    ],
)
def test_closed_models(stage, hub, tiny_model, access, token, words):
    hub.add("model", "org/closed", tiny_model, **access)
    hub.tokens = {TOKEN: {"org/closed"}, "hf_another": set()}
    ended = stage("org/closed", token=token)
    assert (ended.code, ended.reason) == (65, "ModelForbidden")
    assert words in ended.result.message
    opened = stage("org/closed", token=TOKEN)
    assert opened.code == 0, opened.errors
    assert TOKEN not in opened.output + opened.errors + opened.message


def test_a_private_model_that_the_token_does_not_open(stage, hub, tiny_model):
    """The hub reports the same for a model that does not exist."""
    hub.add("model", "org/closed", tiny_model, private=True)
    hub.tokens = {TOKEN: set()}
    ended = stage("org/closed", token=TOKEN)
    assert (ended.code, ended.reason) == (65, "ModelNotFound")
    hidden = "or the owner of the token in HF_TOKEN may not read it"
    assert ended.result.message == f"Model org/closed: it does not exist on {hub.url}, {hidden}; correct model.uri."


def test_a_model_that_does_not_exist(stage, hub):
    ended = stage("org/none")
    assert (ended.code, ended.reason) == (65, "ModelNotFound")
    assert ended.result.message == f"Model org/none: it does not exist on {hub.url}; correct model.uri."


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("/api/models/org/tiny", {"status": 503}),
        ("/api/models/org/tiny", {"reset_after": 3}),
        ("config.json", {"status": 500, "times": 99}),
    ],
)
def test_a_hub_that_fails(run_stage_program, stage, hub, tiny_model, text, how):
    hub.add("model", "org/tiny", tiny_model)
    hub.fault(text, **how)
    ended = stage("org/tiny")
    assert (ended.code, ended.reason) == (75, "ModelUnreachable")
    assert "Traceback" not in ended.errors
    assert not run_stage_program.path("cache/models").exists()


def test_a_download_that_breaks_off_is_resumed(stage, hub, tiny_model):
    hub.add("model", "org/tiny", tiny_model)
    hub.fault("model.safetensors", reset_after=100_000)
    ended = stage("org/tiny")
    assert ended.code == 0, ended.errors
    assert stage.fetched_weights() == ["model.safetensors"] * 2
    assert (stage.linked() / "model.safetensors").read_bytes() == (tiny_model / "model.safetensors").read_bytes()


def test_weights_that_are_not_what_the_hub_states(run_stage_program, stage, hub, tiny_model):
    """The hub's statement and its file disagree: as after a broken proxy or a zombie writer."""
    commit = hub.add("model", "org/tiny", tiny_model)
    weights = hub.folder / "models" / "org/tiny" / commit / "model.safetensors"
    stated = hashlib.sha256(weights.read_bytes()).hexdigest()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    hub.state("org/tiny", "model.safetensors", stated)
    weights.write_bytes(data)
    ended = stage("org/tiny")
    assert (ended.code, ended.reason) == (75, "ModelUnreachable")
    assert (
        f"model.safetensors: the download is damaged: its SHA-256 is {hashlib.sha256(data).hexdigest()}, and the hub states {stated}"
        in ended.result.message
    )
    assert not run_stage_program.path("cache/models").exists()
    shutil.copyfile(tiny_model / "model.safetensors", weights)
    assert stage("org/tiny", attempt="1.2").code == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_ended_in_the_middle_of_a_download_and_started_again(run_stage_program, stage, hub, sharded, how):
    """What was fetched whole is not fetched again, and what was fetched in part is not used."""
    hub.add("model", "org/tiny", sharded)
    environment = {"HF_ENDPOINT": hub.url}
    hold = hub.fault("model-00002-of-00002.safetensors", hold_after=50_000)
    running = run_stage_program.start("model", ModelInputs("org/tiny"), environment=environment)
    assert hold.reached.wait(60)
    first_shard = next(iter(run_stage_program.workspace.glob("runs/*/attempts/model/1.1/download-*")))
    wait_until((first_shard / "model-00001-of-00002.safetensors").exists)
    os.kill(running.process.pid, how)
    ended = running.wait(timeout=20)
    assert (ended.code, ended.reason) == ((143, "Interrupted") if how is signal.SIGTERM else (-signal.SIGKILL, None))
    assert not run_stage_program.path("cache/models").exists()
    assert not run_stage_program.path(run_stage_program.layout.base_model).exists()
    hub.requests.clear()
    ended = run_stage_program("model", ModelInputs("org/tiny"), environment=environment, attempt="1.2")
    assert ended.code == 0, ended.errors
    assert stage.fetched_weights() == ["model-00002-of-00002.safetensors"]
    entry = stage.linked()
    assert all((entry / path.name).read_bytes() == path.read_bytes() for path in sharded.iterdir())
    assert stage.nothing_is_left()


def test_many_programs_at_once_on_one_cache_entry(run_stage_program, stage, hub, tiny_model):
    hub.add("model", "org/tiny", tiny_model)
    runs = [RunInfo(f"run-{letter}", "team-a", letter * 16) for letter in "abc"]
    started = []
    for run in runs:
        run_stage_program.run = run
        started.append(run_stage_program.start("model", ModelInputs("org/tiny"), environment={"HF_ENDPOINT": hub.url}))
    ended = [running.wait() for running in started]
    assert [each.code for each in ended] == [0, 0, 0], [each.errors for each in ended]
    (entry,) = run_stage_program.path("cache/models").iterdir()
    for run in runs:
        run_stage_program.run = run
        assert stage.linked() == entry
        assert stage.nothing_is_left()
