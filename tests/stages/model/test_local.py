"""Models of the machine into the cache, and a link into the run's folder."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from finetune_contract.documents import ModelInputs
from finetune_stages.sdk import verify_seal
from restricted import in_a_small_volume, without_privileges

PROGRAM = [sys.executable, "-m", "finetune_stages.model"]


def test_a_local_model_is_linked_sealed_and_can_be_loaded(run_stage_program, stage, tiny_model):
    ended = stage(tiny_model)
    assert ended.code == 0, ended.errors
    entry = stage.linked()
    seal = verify_seal(entry)
    assert ended.result.outputs == {
        "digest": seal.digest, "parameters": ended.result.outputs["parameters"], "architecture": "Qwen2ForCausalLM",
        "sizeBytes": sum(file.size for file in seal.files.values()),
    }  # fmt: skip
    assert ended.result.metrics["parameters"] == ended.result.outputs["parameters"]
    assert stage.nothing_is_left()
    assert all(path.lstat().st_mode & 0o040 for path in run_stage_program.workspace.rglob("*"))
    program = (
        "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer; t = AutoTokenizer.from_pretrained(sys.argv[1]);"
        "m = AutoModelForCausalLM.from_pretrained(sys.argv[1]); ids = t.apply_chat_template([{'role': 'user', 'content': 'hi'}]);"
        "print(m.num_parameters())"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program, run_stage_program.path(run_stage_program.layout.base_model)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert int(loaded.stdout) == ended.result.outputs["parameters"], loaded.stderr


def test_a_file_that_its_group_may_not_read_is_copied(stage, model):
    (model / "model.safetensors").chmod(0o600)
    (model / "config.json").chmod(0o644)
    assert stage(model).code == 0
    entry = stage.linked()
    assert (entry / "model.safetensors").stat().st_mode & 0o777 == 0o664
    assert not (entry / "model.safetensors").samefile(model / "model.safetensors")
    assert (entry / "config.json").samefile(model / "config.json")
    assert (model / "model.safetensors").stat().st_mode & 0o777 == 0o600


def test_links_of_the_hubs_own_cache_are_followed(stage, model, tmp_path):
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in model.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert stage(f"file://{snapshot}").code == 0
    assert not any(path.is_symlink() for path in stage.linked().iterdir())


def test_the_same_model_twice(run_stage_program, stage, tiny_model):
    first = stage(tiny_model)
    again = stage(tiny_model, attempt="1.2")
    assert "nothing to do" in again.output
    assert replace(again.result, attempt="1.1") == first.result
    stage.as_another_run()
    other = stage(tiny_model)
    assert other.result.reused
    assert other.result.outputs == first.result.outputs
    assert len(list(run_stage_program.path("cache/models").iterdir())) == 1


def test_a_changed_model_is_another_one(stage, model):
    first = stage(model)
    template = model / "chat_template.jinja"
    content = template.read_text()
    template.unlink()  # a new file: the cache may hold a link to the old one
    template.write_text(content + "{# new #}")
    stage.as_another_run()
    second = stage(model)
    assert not second.result.reused
    assert second.result.outputs["digest"] != first.result.outputs["digest"]


@pytest.mark.parametrize(
    ("uri", "reason", "words"),
    [
        ("/nowhere", "ModelNotFound", "model.uri: there is no model at /nowhere; correct the path."),
        ("/etc/hosts", "ModelNotFound", "/etc/hosts is a file"),
        ("/etc", "ModelIncomplete", "/etc: it has no weights"),
        ("https://example.com/model", "ModelNotFound", "https:// is not a scheme of a model"),
        ("a/b/c", "ModelNotFound", "is not a hub id"),
    ],
)
def test_what_is_no_model(stage, uri, reason, words):
    ended = stage(uri)
    assert (ended.code, ended.reason) == (65, reason)
    assert words in ended.result.message
    assert "Traceback" not in ended.errors


def test_a_revision_of_a_local_model(stage, tiny_model):
    ended = stage(tiny_model, revision="v1")
    assert (ended.code, ended.reason) == (65, "BadDocument")
    assert "model.revision: only models of the hub have revisions" in ended.result.message


@pytest.mark.parametrize("closed", ["", "model.safetensors", "config.json"])
def test_files_that_the_user_may_not_read(run_stage_program, model, closed):
    (model / closed).chmod(0)
    command = without_privileges(PROGRAM)
    ended = run_stage_program("model", ModelInputs(str(model)), command=command)
    (model / closed).chmod(0o755)
    assert (ended.code, ended.reason) == (65, "ModelForbidden")
    assert f"model.uri: user {os.getuid()} may not read {model / closed}" in ended.result.message


def test_a_local_model_that_does_not_fit(run_stage_program, tiny_model, tmp_path):
    command = in_a_small_volume(PROGRAM, run_stage_program.workspace, 2_000, tmp_path / "left.txt")
    ended = run_stage_program("model", ModelInputs(str(tiny_model)), command=command)
    assert (ended.code, ended.reason) == (65, "WorkspaceFull"), ended.errors
    assert "cache/models" not in (tmp_path / "left.txt").read_text()


def test_an_attempt_that_was_overtaken_links_nothing(stage, model):
    assert stage(model, attempt="2.1").code == 0
    before = stage.linked()
    (model / "README.md").unlink()
    (model / "README.md").write_text("another model")
    ended = stage(model, attempt="1.1")
    assert (ended.code, ended.reason) == (143, "Superseded")
    assert stage.linked() == before
