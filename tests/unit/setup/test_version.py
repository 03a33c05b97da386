"""The version is in one place: what is built and generated has it from there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

import versions
from finetune_operator import __version__
from finetune_operator.api.crd import VERSION_ANNOTATION
from images import recipes

ROOT = Path(__file__).parents[3]


def test_the_wheel_has_it(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        metadata = archive.read(f"finetune_operator-{__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {__version__}\n" in metadata


def test_the_command_line_prints_it() -> None:
    words = [Path(sys.executable).with_name("finetune"), "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"finetune {__version__}\n", "")


def test_the_labels_of_images_have_it() -> None:
    assert recipes.version() == __version__


def test_the_definition_has_it() -> None:
    definition = yaml.safe_load((ROOT / "crds/finetuneruns.finetunerun.io.yaml").read_text(encoding="utf-8"))
    assert definition["metadata"]["annotations"] == {VERSION_ANNOTATION: __version__}


def test_manifests_and_pages_have_it() -> None:
    found = dict(versions.files(ROOT, __version__))
    assert {"deployment.yaml", "finetune-cpu.yaml", "operator-configuration.yaml", "images.md"} <= {path.name for path in found}
    assert {path.name for path, text in found.items() if path.read_text(encoding="utf-8") != text} == set()


def test_no_other_file_states_it() -> None:
    declared = re.compile(rf'(?:__version__|^version) = "{re.escape(__version__)}"', re.MULTILINE)
    sources = [ROOT / "pyproject.toml", *(path for top in ("operator", "images", "hack") for path in (ROOT / top).rglob("*.py"))]
    assert [path for path in sources if declared.search(path.read_text(encoding="utf-8"))] == [
        ROOT / "operator/finetune_operator/__init__.py"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image: finetune-operator:0.1.0", "image: finetune-operator:7.8.9"),
        ("registry.example.com/finetune/dataset:0.1.0", "registry.example.com/finetune/dataset:7.8.9"),
        ("registry.example.com:5000/finetune-training-cuda:0.1.0 .", "registry.example.com:5000/finetune-training-cuda:7.8.9 ."),
        ("finetune-operator:test", "finetune-operator:test"),
        ("my-finetune-operator:0.1.0", "my-finetune-operator:0.1.0"),
        ("finetune-operator:0.1.0-rc1", "finetune-operator:0.1.0-rc1"),
        ("finetune-operator:0.1.0.", "finetune-operator:7.8.9."),
        ("docker.io/library/python:3.12.1", "docker.io/library/python:3.12.1"),
    ],
)
def test_only_references_to_images_of_a_release_are_changed(text: str, expected: str) -> None:
    assert versions.update(text, "7.8.9") == expected
