"""Another run with the same inputs reuses the model if its source is unchanged, and only then."""

from __future__ import annotations

import os
import sys

import pytest

from families import edit_config
from finetune_contract.documents import ModelInputs
from web_server import unused_port

HEAVY = ("numpy", "httpx2", "huggingface_hub", "safetensors", "torch")


def flip(path) -> None:
    """Change the last byte, in place, and keep size and time."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_directory_that_is_the_same_is_reused_at_once(run_stage_program, stage, tiny_model):
    first = stage(tiny_model)
    entry = stage.linked()
    stage.as_another_run()
    command = [sys.executable, "-X", "importtime", "-m", "finetune_stages.model"]
    second = run_stage_program("model", ModelInputs(str(tiny_model)), command=command)
    assert second.result.reused, second.errors
    assert second.result.message == f"the same as run demo: {first.result.message}"
    assert second.result.outputs == first.result.outputs
    assert stage.linked() == entry
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in second.errors.splitlines()}
    assert "finetune_stages" in imported
    assert not imported & set(HEAVY)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_flipped_byte_in_the_cache_is_detected_and_repaired(stage, model, name):
    for file in model.iterdir():
        file.chmod(0o600)  # so that they are copied, and the source stays sound
    stage(model)
    flip(stage.linked() / name)
    stage.as_another_run()
    ended = stage(model)
    assert (ended.code, ended.result.reused) == (0, False), ended.errors
    assert "run demo has a result for the same inputs, but its base_model is gone or damaged" in ended.output
    assert (stage.linked() / name).read_bytes() == (model / name).read_bytes()


def test_a_changed_byte_in_the_source_is_detected(stage, model):
    for file in model.iterdir():
        file.chmod(0o600)
    first = stage(model)
    flip(model / "model.safetensors")
    stage.as_another_run()
    ended = stage(model)
    assert (ended.code, ended.result.reused) == (0, False), ended.errors
    assert ended.result.outputs["digest"] != first.result.outputs["digest"]


def test_what_the_user_must_know_is_reported_to_every_run(stage, model):
    edit_config(model, tie_word_embeddings=True)
    first = stage(model)
    (warning,) = first.result.warnings
    assert "the weights have a separate output layer (lm_head.weight); it is used" in warning
    stage.as_another_run()
    second = stage(model)
    assert second.result.reused
    assert second.result.warnings == first.result.warnings


def test_a_file_more_is_detected(stage, model):
    stage(model)
    (model / "LICENSE").write_text("do what you like")
    stage.as_another_run()
    ended = stage(model)
    assert not ended.result.reused
    assert (stage.linked() / "LICENSE").is_file()


def test_a_pinned_commit_needs_no_hub_and_a_branch_is_asked_for(stage, hub, model):
    commit = hub.add("model", "org/tiny", model)
    stage("org/tiny", revision=commit)
    stage("org/tiny", attempt="2.1")
    stage.as_another_run()
    pinned = stage("org/tiny", revision=commit, endpoint=f"http://127.0.0.1:{unused_port()}")
    assert pinned.result.reused
    assert pinned.result.outputs["revision"] == commit
    (model / "README.md").write_text("new")
    new = hub.add("model", "org/tiny", model)
    moved = stage("org/tiny", attempt="2.1")
    assert (moved.result.reused, moved.result.outputs["revision"]) == (False, new)
