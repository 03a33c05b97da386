"""What the platform does not allow runs to do, and where its limits do not apply."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune_operator.core.resolve import SpecRejection, resolve
from finetune_operator.core.settings import Allowed, Settings, Trainer
from finetune_operator.core.stages import GRAPH
from finetune_operator.kube.configuration import BadConfiguration, Configuration
from unit.core.passes import run_of
from unit.core.test_manifests import CLUSTER
from world import World

SAFE = Configuration().settings(Trainer(), {}).allowed
NOTHING = Allowed(remote_code=False, task_code=False, training_images=(), service_accounts=(), claims=())
VOLUMES = {
    "volumes": [
        {"name": "scratch-2", "emptyDir": {}},
        {"name": "own", "persistentVolumeClaim": {"claimName": "own"}},
    ]
}
DENIED: dict[str, tuple[dict[str, Any], str]] = {
    "code of the model": (
        {"model": {"uri": "org/model", "trustRemoteCode": True}},
        ("model.trustRemoteCode: true is not allowed here, because code of the model would run in the pods of all stages and could change"
        " its scores; remove it, or ask an administrator to set allow.remoteCode in the operator's configuration."),
    ),
    "image": ({"training": {"image": "docker.io/mine:1"}}, "training.image: docker.io/mine:1 is not allowed here"),
    "account": ({"serviceAccountName": "builder"}, "serviceAccountName: builder is not allowed here"),
    "claim of the workspace": ({"storage": {"claimName": "own"}}, "storage.claimName: own is not allowed here"),
    "claim of the data": ({"dataset": {"uri": "pvc://own/rows.jsonl"}}, "dataset.uri: own is not allowed here"),
    "claim of held-out data": (
        {"dataset": {"uri": "org/data", "evalUri": "pvc://own/rows.jsonl"}}, "dataset.evalUri: own is not allowed here",
    ),
    "claim of the model": ({"model": {"uri": "pvc://own/model"}}, "model.uri: own is not allowed here"),
    "claim of a volume": ({"training": VOLUMES}, "training.volumes: own is not allowed here"),
}  # fmt: skip


def answer(spec: dict[str, Any], allowed: Allowed, **settings: Any) -> str:
    found = resolve({"dataset": {"uri": "org/data"}, **spec}, replace(CLUSTER, allowed=allowed, **settings))
    return f"{found.reason}: {found.message}" if isinstance(found, SpecRejection) else "resolved"


@pytest.mark.parametrize(("spec", "words"), DENIED.values(), ids=DENIED)
def test_what_a_run_may_not_set(spec: dict[str, Any], words: str) -> None:
    assert answer(spec, NOTHING).startswith(f"NotAllowed: spec.{words}")
    assert answer(spec, Allowed()) == "resolved"
    assert answer({}, Allowed(), operator_defaults=spec) == "resolved"


@pytest.mark.parametrize("spec", [spec for spec, _ in DENIED.values() if "dataset" not in spec])
def test_what_the_defaults_of_a_namespace_may_not_set(spec: dict[str, Any]) -> None:
    assert answer({}, NOTHING, namespace_defaults=spec).startswith("NotAllowed: ConfigMap finetune-defaults, ")
    assert answer({}, NOTHING, operator_defaults=spec) == "resolved", "the platform sets both"


def test_limits_do_not_apply_to_the_configuration_of_the_operator() -> None:
    assert (
        answer({}, NOTHING, operator_defaults={"serviceAccountName": "builder", "training": {"image": "docker.io/mine:1"}})
        == "resolved"
    )
    images = {**CLUSTER.images, "training-cuda": "registry.example.com/ours:1"}
    assert answer({}, NOTHING, images=images) == "resolved"


def test_what_is_listed_is_allowed() -> None:
    some = Allowed(training_images=("registry.example.com/",), service_accounts=("tuner",), claims=("own",))
    for spec in (
        {"training": {"image": "registry.example.com/a:1", **VOLUMES}},
        {"serviceAccountName": "tuner"},
        {"storage": {"claimName": "own"}},
    ):
        assert answer(spec, some) == "resolved"
    assert answer({"serviceAccountName": "finetune-stage"}, NOTHING) == "resolved"
    assert answer({"model": {"uri": "org/model", "trustRemoteCode": False}}, NOTHING) == "resolved"
    assert answer({"training": {"volumes": [{"name": "s", "emptyDir": {}}]}}, NOTHING) == "resolved"


@pytest.mark.parametrize(
    ("image", "expected"),
    [("quay.io/team/x:1", "resolved"), ("quay.io/team-evil/x:1", "NotAllowed"), ("quay.io.evil.com/team/x:1", "NotAllowed")],
)
def test_images_are_compared_segment_by_segment(image: str, expected: str) -> None:
    assert answer({"training": {"image": image}}, Allowed(training_images=("quay.io/team",))).startswith(expected)


def test_without_a_configuration_code_and_accounts_are_denied() -> None:
    assert Allowed(remote_code=False, task_code=False, service_accounts=()) == SAFE
    denied = {name for name, (spec, _) in DENIED.items() if answer(spec, SAFE) != "resolved"}
    assert denied == {"code of the model", "account"}


@pytest.mark.parametrize(("text", "isolation"), [("{}", "digests"), ("isolateTraining: true", "mounts")])
def test_isolation_is_recorded_in_status(tmp_path: Path, text: str, isolation: str) -> None:
    (tmp_path / "configuration.yaml").write_text(text)
    settings = Configuration.load(tmp_path / "configuration.yaml", {}).settings(Trainer(), {})
    found = resolve({"dataset": {"uri": "org/data"}}, settings)
    assert isinstance(found, dict)
    assert found["isolation"] == isolation


def test_the_configuration_is_read_and_validated(tmp_path: Path) -> None:
    file = tmp_path / "configuration.yaml"

    def allow(text: str) -> Allowed:
        file.write_text(f"allow: {text}")
        return Configuration.load(file, {}).settings(None, {}).allowed

    text = "{remoteCode: true, taskCode: true, trainingImages: [quay.io/], serviceAccounts: [tuner], claims: []}"
    assert allow(text) == Allowed(True, True, ("quay.io/",), ("tuner",), ())
    for wrong, words in {
        "{remotecode: true}": "allow.remotecode: is not a field",
        "{serviceAccounts: [finetune-operator]}": "finetune-operator is the account of the operator",
        "{claims: [A_b]}": "allow.claims",
        "{trainingImages: ['https://quay.io/']}": "allow.trainingImages",
        "{trainingImages: ['quay.io/*']}": "allow.trainingImages",
    }.items():
        with pytest.raises(BadConfiguration, match=re.escape(words)):
            allow(wrong)


@pytest.mark.parametrize("allowed", [True, False])
def test_the_evaluation_knows_whether_task_files_may_run_code(allowed: bool) -> None:
    settings: Settings = replace(CLUSTER, allowed=Allowed(task_code=allowed))
    world = World.new({"dataset": {"uri": "org/data"}})
    world.write_status({"resolved": resolve(world.run["spec"], settings), "startedAt": "2026-11-30T00:00:00Z"})
    needs = GRAPH.programs["evaluation"].pod(run_of(world))
    assert ({"name": "FINETUNE_TASK_CODE", "value": "0"} in needs.environment) is not allowed
