"""Programs on a workspace that is mounted as the manifests state: real mounts, in a mount namespace of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.documents import RunInfo
from finetune_operator.core.manifests import volumes
from finetune_operator.core.manifests.pod import WORKSPACE_PATH, PodNeeds
from finetune_operator.core.resolve import resolve
from finetune_operator.core.run import Run, StageStatus
from unit.core.test_manifests import CLUSTER

from .conftest import PROGRAM
from .plain_stage import stage_inputs

NAMESPACE = ["unshare", "--mount", "--propagation", "private"]
MOUNT = """
import subprocess, sys, json, os
mounts, command = json.loads(sys.argv[1]), sys.argv[2:]
for source, target, read_only in mounts:
    subprocess.run(["mount", "--bind", source, target], check=True)
    if read_only:
        subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True)
os.execvp(command[0], command)
"""
WRITE = """
import json, sys
from pathlib import Path
found = {}
for name in sys.argv[1:]:
    try:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("planted")
        found[name] = None
    except OSError as error:
        found[name] = error.strerror
print(json.dumps(found))
"""


def possible() -> bool:
    """Whether this process may mount."""
    found = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return found.returncode == 0


pytestmark = pytest.mark.skipif(shutil.which("unshare") is None or not possible(), reason="mounts require root")


def mounted(workspace: Path, info: RunInfo, stage: str, spec: Mapping[str, Any], command: Sequence[str]) -> list[str]:
    """A command that runs ``command`` where the folder ``volume`` beside the workspace is mounted on it as in the pod of a stage."""
    resolved = resolve({"dataset": {"uri": "org/data"}, **spec}, replace(CLUSTER, isolation="mounts"))
    assert isinstance(resolved, dict)
    run = Run(info.name, info.namespace, info.uid, 1, {}, {"resolved": resolved})
    mounts = []
    for one in volumes.mounts(run, StageStatus(stage, "Running"), PodNeeds()):
        if not one["mountPath"].startswith(WORKSPACE_PATH):
            continue
        source = workspace.with_name("volume") / one.get("subPath", "")
        assert source.is_dir(), "the kubelet need not make a folder"
        target = f"{workspace}{one['mountPath'].removeprefix(WORKSPACE_PATH)}"
        mounts.append([str(source), target, bool(one.get("readOnly"))])
    return [*NAMESPACE, sys.executable, "-c", MOUNT, json.dumps(mounts), *command]


@pytest.fixture
def volume(stage: Any) -> Path:
    """The volume with what the stages before training leave."""
    folder: Path = stage.programs.workspace.with_name("volume")
    for letter in "ab":
        stage.as_run(letter)
        layout = stage.programs.layout
        for name in (
            layout.folder("training"),
            layout.datasets,
            layout.tokens,
            f"{layout.root}/results",
            "cache/results/training",
        ):
            (folder / name).mkdir(parents=True, exist_ok=True)
    stage.as_run("a")
    return folder


def written(stage: Any, name: str, spec: Mapping[str, Any], paths: Sequence[str]) -> dict[str, str | None]:
    """What a program in the pod of a stage can write: the error by path, ``None`` for a written file."""
    workspace = stage.programs.workspace
    command = [sys.executable, "-c", WRITE, *(str(workspace / path) for path in paths)]
    done = subprocess.run(mounted(workspace, stage.programs.run, name, spec, command), capture_output=True, text=True, check=True)
    return {path: json.loads(done.stdout)[str(workspace / path)] for path in paths}


READ_ONLY = "Read-only file system"
CUSTOM = {"training": {"image": "registry.example.com/mine:1"}}


@pytest.mark.parametrize(("spec", "answer"), [({}, None), (CUSTOM, READ_ONLY)], ids=["platform", "custom"])
def test_a_program_in_a_pod_of_training_can_plant_nothing(
    stage: Any, volume: Path, spec: dict[str, Any], answer: str | None
) -> None:
    layout = stage.programs.layout
    forbidden = (
        layout.result("evaluation", 1, "d" * 64), layout.newest_result("baseline"), f"{layout.datasets}/eval.jsonl",
        layout.passages("holdout"), "tasks/arc_easy.yaml", "cache/results/evaluation/x.json", "cache/baselines/x/finished.json",
        "cache/datasets/x/train.jsonl", "cache/models/x/model.safetensors", layout.base_model, f"{layout.root}/attempts/evaluation/current",
        "runs/run-b-bbbbbbbb/training/final_model/x", "mlflow.db",
    )  # fmt: skip
    assert written(stage, "training", spec, forbidden) == dict.fromkeys(forbidden, READ_ONLY)
    assert not list(volume.rglob("arc_easy.yaml"))
    allowed = (f"{layout.final_model}/x", f"{layout.folder('training')}/attempts/training/1.1/x")
    assert written(stage, "training", spec, allowed) == dict.fromkeys(allowed)
    assert written(stage, "training", spec, ["cache/results/training/x.json"]) == {"cache/results/training/x.json": answer}


@pytest.mark.parametrize("name", ["evaluation", "registration"])
def test_what_is_measured_and_registered_cannot_be_changed_there(stage: Any, volume: Path, name: str) -> None:
    layout = stage.programs.layout
    forbidden = (f"{layout.final_model}/x", f"{layout.datasets}/eval.jsonl", layout.passages("holdout"))
    assert written(stage, name, {}, forbidden) == dict.fromkeys(forbidden, READ_ONLY)
    assert written(stage, name, {}, [layout.newest_result(name)]) == {layout.newest_result(name): None}
    assert not (volume / layout.final_model).exists()


def test_training_publishes_in_its_folder_and_another_run_takes_the_result(stage: Any, volume: Path) -> None:
    inputs = {**stage_inputs("adapter", "checkpoints/epoch_1"), "worked": str(volume.with_name("worked.txt"))}
    names = ("final_model", "adapter", "checkpoints/epoch_1")

    def train(letter: str) -> Any:
        stage.as_run(letter)
        command = mounted(stage.programs.workspace, stage.programs.run, "training", {}, [sys.executable, PROGRAM])
        return stage.programs("training", inputs, command=command)

    first = train("a")
    assert (first.code, first.result.reused) == (0, False), first.errors
    second = train("b")
    assert (second.code, second.result.reused) == (0, True), second.errors
    mine, theirs = (volume / f"runs/run-{letter}-{letter * 8}/training" for letter in "ba")
    for name in names:
        assert (mine / name / "weights.bin").read_bytes() == (theirs / name / "weights.bin").read_bytes()
        assert (mine / name / "weights.bin").stat().st_nlink == 1, "there are no links between two mounts"
    assert not list(stage.programs.workspace.iterdir()), "nothing was written outside of the mounts"
