"""The sets of libraries of training images: their locks, and the environments that are made from them."""

from __future__ import annotations

from pathlib import Path

import pytest

import cuda_placeholders
import lock
from compat import environments
from compat.sets import IN_CI, SETS
from compat.trainings import PACKAGES, Record
from controlplane.binaries import NotBuiltError

ROOT = Path(__file__).parents[3]


def versions(name: str) -> dict[str, str]:
    return {
        package: pin.split(" ")[0].partition("==")[2]
        for package, pin in lock.pins((ROOT / "hack/compat" / f"{name}.lock").read_text())
    }


def test_each_set_has_a_lock_and_what_it_is_made_from() -> None:
    assert lock.COMPAT == SETS
    assert set(IN_CI) == {SETS[0], SETS[-1]}
    assert {path.stem for path in (ROOT / "hack/compat").glob("*.lock")} == {
        path.stem for path in (ROOT / "hack/compat").glob("*.in")
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "openshift-ai-3.3",
            {
                "training-hub": "0.4.0", "instructlab-training": "0.12.1", "rhai-innovation-mini-trainer": "0.3.0", "torch": "2.9.0",
                "transformers": "4.57.1", "trl": "0.21.0", "peft": "0.17.0", "accelerate": "1.10.0", "datasets": "4.3.0",
            },
        ),
        (
            "openshift-ai-3.5",
            {
                "training-hub": "0.9.2", "instructlab-training": "0.16.2", "rhai-innovation-mini-trainer": "0.8.3", "torch": "2.11.0",
                "transformers": "5.13.0", "trl": "1.7.1", "peft": "0.19.1", "accelerate": "1.14.0", "datasets": "5.0.0",
            },
        ),
    ],
)  # fmt: skip
def test_a_set_has_the_versions_of_its_image(name: str, expected: dict[str, str]) -> None:
    found = versions(name)
    assert {package: found[package] for package in expected} == expected


def test_the_newest_set_has_the_versions_of_the_project() -> None:
    ours = {
        package: pin.split(" ")[0].partition("==")[2] for package, pin in lock.pins((ROOT / "requirements/all.lock").read_text())
    }
    found = versions("newest")
    shared = ours.keys() & found.keys()
    assert {"torch", "transformers", "trl", "peft", "accelerate", "datasets"} <= shared
    assert {package: found[package] for package in shared} == {package: ours[package] for package in shared}


@pytest.mark.parametrize("name", SETS)
def test_a_lock_has_no_address(name: str) -> None:
    assert "://" not in (ROOT / "hack/compat" / f"{name}.lock").read_text()


@pytest.mark.parametrize("name", SETS)
def test_the_real_cuda_runtime_is_installed(name: str) -> None:
    runtime = [package for package in versions(name) if package.startswith("nvidia-cuda-runtime")]
    assert runtime
    assert not any(cuda_placeholders.is_only_for_gpus(package) for package in runtime)


def test_the_record_has_the_versions_of_the_locks() -> None:
    expected = {name: {package: versions(name)[package] for package in PACKAGES} for name in SETS}
    assert Record.read().versions == expected, "run python hack/compat test --record"


def test_the_record_has_each_training_and_each_has_learned() -> None:
    record = Record.read()
    alone = [("portable", name, 1, 1) for name in ("sft", "osft", "lora", "lora, packed", "sft, recomputed")]
    together = [("portable", name, 1, 2) for name in ("sft", "osft", "lora")]
    hub = [("training-hub", name, *place) for name in ("sft", "osft") for place in ((1, 1), (1, 2), (2, 2))]
    expected = {(name, *training) for name in SETS for training in (*alone, *together, *hub)}
    assert {one.key for one in record.trainings} == expected
    for one in record.trainings:
        assert one.samples == one.expected == 100, one
        assert one.last_loss < one.first_loss, one
        assert one.after < one.before, one


def test_an_environment_that_is_not_made_names_its_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NotBuiltError, match="make compat"):
        environments.python("newest")
    assert list(tmp_path.iterdir()) == []


def test_another_lock_is_another_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "newest.lock").write_text("one")
    monkeypatch.setattr(environments, "HERE", tmp_path)
    first = environments._folder("newest")
    (tmp_path / "newest.lock").write_text("two")
    assert environments._folder("newest") != first
