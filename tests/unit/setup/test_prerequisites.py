"""What tests run on is built by set-up targets; where it is not built, one sentence names the target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import progress
from argocd.binary import ARGOCD
from build_error import CannotBuildError
from control_planes import skip_without_go
from controlplane import binaries
from controlplane.binaries import NotBuiltError
from controlplane.crdlint import CRDLINT
from controlplane.programs import GENERATIONS
from images import builds
from images.recipes import OPERATOR
from node import programs
from oras.binary import ORAS
from prerequisites import command, groups
from prerequisites.groups import Group, Step
from registry.binary import REGISTRY
from s3.binary import VERSITYGW
from trainer_models import definitions, environments

BUILD = "python hack/images build operator --base debian --tag 0.1"
FINDERS: list[tuple[Callable[[], object], str]] = [
    (CRDLINT.find, "crdlint: not built from the present sources; run make controlplane"),
    (lambda: binaries.find(None), "etcd and 4 more: not built from the present sources; run make controlplane"),
    (lambda: binaries.find(GENERATIONS["2.1"]), "etcd and 8 more: not built from the present sources; run make controlplane"),
    (ORAS.find, "oras: not built from the present sources; run make controlplane"),
    (REGISTRY.find, "registry: not built from the present sources; run make controlplane"),
    (VERSITYGW.find, "versitygw: not built from the present sources; run make controlplane"),
    (ARGOCD.find, "argocd: not built from the present sources; run make controlplane"),
    (programs.find, "kubelet and 2 more: not built from the present sources; run make containers"),
    (
        lambda: environments.round_trip("2.1", []),
        "the environment of kubeflow-trainer-api 2.1: not built from the present sources; run make controlplane",
    ),
    (
        lambda: definitions.definition.__wrapped__("2.0"),
        "the definitions of Trainer 2.0: not built from the present sources; run make controlplane",
    ),
    (
        lambda: builds.find(OPERATOR, "debian", "test"),
        "image finetune-operator:test: not built from the present sources; run make containers",
    ),
    (
        lambda: builds.find(OPERATOR, "debian", "0.1"),
        f"image finetune-operator:0.1: not built from the present sources; run {BUILD}",
    ),
]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nothing has been built."""
    skip_without_go()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path


@pytest.mark.go
@pytest.mark.parametrize(("find", "sentence"), FINDERS)
def test_what_is_not_built_names_its_target_and_is_not_built(find: Callable[[], object], sentence: str, empty: Path) -> None:
    with pytest.raises(NotBuiltError) as missing:
        find()
    assert str(missing.value) == sentence
    assert {path.name for path in empty.iterdir()} <= {"modules"}, "Go makes the folder of its modules wherever it looks"


@pytest.mark.go
def test_all_groups_have_their_steps_and_none_is_done(empty: Path) -> None:
    steps = [step for name in ("controlplane", "containers") for step in groups.GROUPS[name].steps(0)]
    keys = [step.key for step in steps]
    assert len(set(keys)) == len(keys)
    assert {
        "crdlint",
        "argocd",
        "registry",
        "versitygw",
        "kube-apiserver",
        "kubelet",
        "image-stages",
        "trainer-models-2.3",
        "trainer-definitions-2.2",
    } <= set(keys)
    assert [step.key for step in steps if step.is_done() and not step.key.endswith("-packages")] == []


def test_a_step_that_fails_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[str] = []

    def make(key: str) -> None:
        with progress.step(f"building {key}", key):
            if key == "etcd":
                raise CannotBuildError("etcd cannot be built: go said no")
            made.append(key)

    def steps(_nice: int) -> list[Step]:
        return [Step(key, lambda key=key: key in made, lambda key=key: make(key)) for key in ("there", "etcd", "kubectl")]

    made.append("there")
    offered = {
        "controlplane": Group(lambda: None, steps),
        "containers": Group(lambda: "containers need root: tests on a node and in images are skipped", steps),
    }
    monkeypatch.setattr(command, "GROUPS", offered)
    assert command.main(["controlplane", "containers"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "containers: containers need root: tests on a node and in images are skipped",
        "2 to build",
        "[1/2] building etcd",
        "[1/2] etcd: etcd cannot be built: go said no",
        "[2/2] building kubectl",
        "[2/2] building kubectl: done in 0 s",
        "not built: etcd",
    ]
    assert command.main(["containers"]) == 0


def test_no_test_compiles_a_program_of_ours() -> None:
    """Building belongs to set-up: under a test's time limit it fails on a slow machine."""
    tests = Path(__file__).parents[2]
    words = ("crdlint.build(", "binaries.build(", "builds.build(", "programs.build(", '"go", "build"')
    found = {
        f"{path.relative_to(tests)}: {word}" for path in tests.rglob("*.py") if path != Path(__file__) for word in words
        if word in path.read_text(encoding="utf-8")
    }  # fmt: skip
    # These build a program of two lines, to show how building goes.
    assert {one for one in found if not one.startswith("cluster/test_binaries.py")} == set()
