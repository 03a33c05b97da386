"""Models on the volumes of claims, mounted where the pods of the stage have them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.documents import ModelInputs
from finetune_stages.model import local
from finetune_stages.model.check import Requirements
from finetune_stages.sdk import Context, StageError
from finetune_stages.sources.origin import MODEL
from finetune_stages.sources.uri import parse_uri


@pytest.fixture
def claims(tiny_model: Path, tmp_path: Path) -> Path:
    """The mount points of two claims; one has a model."""
    folder = tmp_path / "claims"
    shutil.copytree(tiny_model, folder / "models" / "llama" / "tiny")
    (folder / "other").mkdir()
    return folder


@pytest.fixture
def read(run_stage_program: Any, claims: Path) -> Any:
    """Runs the stage with the claims."""

    environment = {"FINETUNE_CLAIMS": str(claims)}
    return lambda uri, **more: run_stage_program("model", ModelInputs(uri, **more), environment=environment)


def test_a_model_on_a_claim_is_stored_under_the_digest_of_its_files(read: Any, stage: Any, claims: Path) -> None:
    first = read("pvc://models/llama/tiny/")
    assert first.code == 0, first.errors
    assert first.result.message.endswith("from pvc://models/llama/tiny")
    entry = stage.linked()
    assert (entry / "config.json").read_bytes() == (claims / "models/llama/tiny/config.json").read_bytes()
    stage.as_another_run()
    again = read("pvc://models/llama/tiny/")
    assert again.result.message.startswith("the same as run demo: "), again.output
    weights = claims / "models/llama/tiny/README.md"
    weights.unlink()
    weights.write_text("another one")
    stage.as_another_run("third")
    changed = read("pvc://models/llama/tiny/")
    assert changed.code == 0, changed.errors
    assert changed.result.outputs["digest"] != first.result.outputs["digest"]


def test_a_model_in_the_root_of_a_claim(
    context: Context, monkeypatch: pytest.MonkeyPatch, claims: Path, tiny_model: Path
) -> None:
    shutil.copytree(tiny_model, claims / "root")
    monkeypatch.setenv("FINETUNE_CLAIMS", str(claims))
    for uri in ("pvc://root", "pvc://root/"):
        assert local.obtain(context, local.Directory.of(parse_uri(uri, MODEL), MODEL), Requirements()).name == "pvc://root"


SENTENCES = [
    ("pvc://models/llama", "ModelIncomplete", "pvc://models/llama: it has no weights, neither model.safetensors nor model.safetensors.index.json; use a model in the safetensors format."),
    ("pvc://models/mistral", "ModelNotFound", "model.uri: there is no model at pvc://models/mistral; correct the path."),
    ("pvc://models/llama/tiny/config.json", "ModelNotFound", "model.uri: pvc://models/llama/tiny/config.json is a file; set a directory."),
    ("pvc://nobody/x", "BadDocument", "model.uri: claim nobody is not mounted below the directory in FINETUNE_CLAIMS; mount it there."),
    ("pvc://models/../other", "ModelNotFound", "model.uri: pvc://models/../other is not an address of pvc://; write pvc://<claim>/<path> without . and .. in the path."),
    ("pvc://models/outside", "ModelNotFound", "model.uri: pvc://models/outside is a link to a directory outside of the claim; set a directory on the claim."),
    ("pvc://models/linked", "ModelNotFound", "model.uri: pvc://models/linked/config.json is a link to a file outside of the claim; set a file on the claim."),
]  # fmt: skip


@pytest.mark.parametrize(("uri", "reason", "sentence"), SENTENCES)
def test_each_fault_has_a_reason_and_one_sentence(
    context: Context, monkeypatch: pytest.MonkeyPatch, claims: Path, tiny_model: Path, uri: str, reason: str, sentence: str
) -> None:
    (claims / "models" / "outside").symlink_to(tiny_model)
    shutil.copytree(tiny_model, claims / "models" / "linked")
    (claims / "models" / "linked" / "config.json").unlink()
    (claims / "models" / "linked" / "config.json").symlink_to(tiny_model / "config.json")
    monkeypatch.setenv("FINETUNE_CLAIMS", str(claims))
    with pytest.raises(StageError) as caught:
        local.obtain(context, local.Directory.of(parse_uri(uri, MODEL), MODEL), Requirements())
    assert (caught.value.reason.name, caught.value.message) == (reason, sentence)


def test_a_revision_of_a_directory_on_a_claim(read: Any) -> None:
    ended = read("pvc://models/llama/tiny", revision="v1")
    assert (ended.reason, ended.result.message) == (
        "BadDocument",
        "model.revision: only models of the hub have revisions, and pvc://models/llama/tiny is a directory; remove it.",
    )
