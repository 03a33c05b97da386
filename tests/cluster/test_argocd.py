"""The effect of the manifests in Argo CD, evaluated by its own command: health, actions, and what it ignores."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from argocd.binary import ARGOCD
from control_planes import built, skip_without_go
from controlplane.api import Api, RefusedError
from controlplane.binaries import find
from controlplane.programs import KUBECTL
from finetune_operator.api.status import PHASES, UNOBSERVED
from finetune_operator.core.pod_report import PodReport, Termination
from kstatus import kstatus
from unit.core.passes import edit, failing, fault, go, observed, world_at
from world import MINIMAL, World

Object = dict[str, Any]
ONE = pytest.mark.parametrize("control_plane", ["2.1"], indirect=True)
ROOT = Path(__file__).parents[2]
OF_RUNS = "finetunerun.io_FineTuneRun"


@dataclass(frozen=True)
class ArgoCD:
    """Argo CD's command with a ConfigMap ``argocd-cm``."""

    command: Path
    settings: Object
    folder: Path

    def says(self, question: str, run: Object, *words: str) -> str:
        """What ``argocd admin settings resource-overrides QUESTION`` prints about a run."""
        files = {"run.yaml": run, "argocd-cm.yaml": self.settings}
        for name, content in files.items():
            (self.folder / name).write_text(yaml.safe_dump(content), encoding="utf-8")
        done = subprocess.run(
            [self.command, "admin", "settings", "resource-overrides", question, "run.yaml", *words, "--argocd-cm-path", "argocd-cm.yaml"],
            cwd=self.folder, env={"HOME": str(self.folder), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout

    def health(self, run: Object) -> tuple[str, str]:
        """Its health and the message."""
        found = re.fullmatch(r"STATUS: (\w+)\nMESSAGE: (.*)\n", self.says("health", run), re.DOTALL)
        assert found is not None
        return found[1], found[2]

    def actions(self, run: Object) -> set[str]:
        """The actions that are offered."""
        rows = [line.split() for line in self.says("list-actions", run).splitlines()[1:]]
        return {name for name, disabled in rows if disabled == "false"}

    def spec_after(self, run: Object, action: str, *words: str) -> Object:
        """What an action makes of ``spec``: the command prints it as a difference."""
        lines = self.says("run-action", run, action, *words).splitlines()
        gone, come = (yaml.safe_load("\n".join(line[2:] for line in lines if line.startswith(mark))) or {} for mark in "<>")
        return {field: value for field, value in run["spec"].items() if field not in gone} | come


@pytest.fixture(scope="module")
def settings() -> Object:
    """The ConfigMap, as kustomize makes it."""
    skip_without_go()
    done = subprocess.run(
        [built(lambda: find(None)).path(KUBECTL), "kustomize", ROOT / "manifests/argocd"],
        capture_output=True,
        text=True,
        check=True,
    )
    found: Object = yaml.safe_load(done.stdout)
    found["metadata"]["namespace"] = "argocd"
    return found


@pytest.fixture
def argocd(settings: Object, tmp_path: Path) -> ArgoCD:
    return ArgoCD(built(ARGOCD.find), settings, tmp_path)


def document(world: World) -> Object:
    """The run as the API server would show it."""
    return {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "status": UNOBSERVED, **world.run}


def at_first_pass(spec: Object | None = None) -> World:
    world = World.new(spec)
    go(world)
    return world


def settled(**scores: float) -> World:
    gate = {"requirements": [{"metric": "holdout.bits_per_byte", "max": 2.5}]}
    world = World.new({**MINIMAL, "gate": gate})
    world.scores = {**world.scores, **scores}
    world.settle()
    return world


def unregistered() -> World:
    world = settled()
    world.write_status({key: value for key, value in world.run["status"].items() if key != "registry"})
    return world


def failed() -> World:
    world = world_at("dataset")
    go(world, **failing(world, "dataset", Termination(65, "Error", fault("DatasetEmpty", "There is no row."))))
    go(world)
    return world


def waiting(**report: str) -> World:
    world = world_at("training")
    go(world, pods={**observed(world).pods, "training": (PodReport("demo-0", **report),)})
    return world


def suspended() -> World:
    world = world_at("training")
    edit(world, suspend=True)
    go(world)
    return world


def reporting() -> World:
    world = world_at("training")
    summary = {**world.run["status"]["summary"], "progress": "40%", "eta": "3m"}
    world.write_status({**world.run["status"], "summary": summary})
    return world


def rerun(passes: int) -> World:
    world = settled()
    edit(world, rerun={"id": "second", "from": "evaluation"})
    for _ in range(passes):
        go(world)
    return world


HEALTH: dict[str, tuple[Callable[[], World], str, str]] = {
    "nobody has looked": (World.new, "Progressing", "The operator has not seen the run yet."),
    "preparing": (at_first_pass, "Progressing", "Preparing"),
    "training": (lambda: world_at("training"), "Progressing", "Training"),
    "training, with a report": (reporting, "Progressing", "Training, 40%, 3m left"),
    "evaluating": (lambda: world_at("evaluation"), "Progressing", "Evaluating"),
    "registering": (lambda: world_at("registration"), "Progressing", "Registering"),
    "suspended": (suspended, "Suspended", "The run is suspended."),
    "suspended before its start": (lambda: at_first_pass({**MINIMAL, "suspend": True}), "Suspended", "The run is suspended."),
    "no GPU is free": (lambda: waiting(unschedulable="0/3 nodes: 3 Insufficient nvidia.com/gpu.", created_at="2026-01-01T00:00:00Z"), "Progressing", "GPUUnavailable: .*Insufficient.*"),
    "an image is missing": (lambda: waiting(waiting="ImagePullBackOff"), "Degraded", "ImagePullFailed: .*"),
    "succeeded": (settled, "Healthy", "osft-model:1.0.0"),
    "succeeded, and registered nowhere": (unregistered, "Healthy", "The run has succeeded."),
    "failed": (failed, "Degraded", "DatasetEmpty: There is no row."),
    "rejected": (lambda: settled(evaluation=3.0), "Degraded", "GateRejected: .*"),
    "edited since": (lambda: rerun(0), "Progressing", "The operator has not seen the last change of the run yet."),
    "once more": (lambda: rerun(3), "Progressing", "Preparing"),
}  # fmt: skip
ACTIONS = {
    **{name: {"resume"} for name in ("suspended", "suspended before its start")},
    **{name: {"rerun"} for name in ("succeeded", "succeeded, and registered nowhere", "failed", "rejected")},
}
"""What is offered; to all others it is ``suspend``."""


AS_KSTATUS_SAYS = {"InProgress": {"Progressing", "Suspended"}, "Current": {"Healthy", "Suspended"}, "Failed": {"Degraded"}}
"""Argo CD has a status of its own for suspended objects; kstatus shows whether something still runs."""


@pytest.mark.parametrize("name", HEALTH)
def test_health_and_actions(argocd: ArgoCD, name: str) -> None:
    world, status, message = HEALTH[name]
    run = document(world())
    health = argocd.health(run)
    assert health[0] == status
    assert status in AS_KSTATUS_SAYS[kstatus(run)]
    assert re.fullmatch(message, health[1]), health[1]
    if name != "edited since":
        assert argocd.actions(run) == ACTIONS.get(name, {"suspend"})


def test_every_phase_that_the_operator_has_is_in_the_table() -> None:
    phases = {world().run.get("status", {}).get("phase", "Pending") for world, _, _ in HEALTH.values()}
    assert phases == set(PHASES) - {"Queued", "AwaitingApproval"}  # core/unsupported.py: queue, gate.approval


def test_the_phase_decides_nothing(argocd: ArgoCD) -> None:
    world = settled()
    world.write_status({**world.run["status"], "phase": "Failed"})
    assert argocd.health(document(world))[0] == "Healthy"


def test_suspend_and_resume_are_each_other_s_contrary(argocd: ArgoCD) -> None:
    run = document(world_at("training"))
    held = argocd.spec_after(run, "suspend")
    assert held == {**run["spec"], "suspend": True}
    assert argocd.spec_after({**run, "spec": held}, "resume") == run["spec"]


@pytest.mark.parametrize(
    ("world", "words", "stage"),
    [(settled, (), "dataset"), (settled, ("--param", "from=gate"), "gate"), (failed, (), "dataset"), (settled, ("--param", "from="), "dataset")],
)  # fmt: skip
def test_a_rerun_has_a_new_id_and_a_first_stage(
    argocd: ArgoCD, world: Callable[[], World], words: tuple[str, ...], stage: str
) -> None:
    run = document(world())
    spec = argocd.spec_after(run, "rerun", *words)
    assert re.fullmatch(r"argocd-\d{8}T\d{6}Z", spec["rerun"].pop("id"))
    assert spec == {**run["spec"], "rerun": {"from": stage}}


@pytest.mark.parametrize(
    ("failed_at", "stage"),
    [
        ("baseline", "evaluation"),
        ("registry-check", "registration"),
        ("engine-check", "training"),
        ("workspace", "dataset"),
        ("tokenization", "training"),
    ],
)
def test_a_stage_that_no_rerun_names_belongs_to_one(argocd: ArgoCD, failed_at: str, stage: str) -> None:
    world = failed()
    world.write_status({**world.run["status"], "failure": {"stage": failed_at, "reason": "Crashed"}})
    assert argocd.spec_after(document(world), "rerun")["rerun"]["from"] == stage


def test_an_unknown_stage_is_rejected_in_one_sentence(argocd: ArgoCD) -> None:
    with pytest.raises(RuntimeError, match='"from: trainning is not a stage to rerun from; choose dataset, model, training, '):
        argocd.says("run-action", document(settled()), "rerun", "--param", "from=trainning")


def test_argo_cd_does_not_compare_the_fields_that_control_a_run(argocd: ArgoCD) -> None:
    world = suspended()
    steered = {"rerun": {"id": "a", "from": "gate"}, "approval": {"decision": "Approved", "of": "x", "by": "y"}}
    run = {**document(world), "spec": {**world.run["spec"], **steered}}
    status_kept = {**argocd.settings["data"], "resource.compareoptions": "ignoreResourceStatusField: none"}
    ignored = ArgoCD(argocd.command, {**argocd.settings, "data": status_kept}, argocd.folder).says("ignore-differences", run)
    assert _keys(ignored) == {"spec.suspend", "spec.rerun", "spec.approval"}


def test_progress_does_not_refresh_the_application(argocd: ArgoCD) -> None:
    # The command ignore-resource-updates of 3.2 looks at the wrong field and never finds any rule; both lists go through one normalizer.
    data = argocd.settings["data"]
    swapped = {
        f"resource.customizations.ignoreDifferences.{OF_RUNS}": data[f"resource.customizations.ignoreResourceUpdates.{OF_RUNS}"],
        "resource.compareoptions": "ignoreResourceStatusField: none",
    }
    run = document(reporting())
    assert _keys(ArgoCD(argocd.command, {**argocd.settings, "data": swapped}, argocd.folder).says("ignore-differences", run)) == {
        "status"
    }


def _keys(difference: str) -> set[str]:
    """The topmost fields that a difference takes away."""
    gone = [line[2:] for line in difference.splitlines() if line.startswith("< ")]
    top = {line.partition(":")[0] for line in gone if not line.startswith(" ")}
    return top | {f"spec.{line.strip().partition(':')[0]}" for line in gone if re.match(r"  \w", line) and "status" not in top}


@ONE
def test_the_api_server_takes_what_the_actions_write(argocd: ArgoCD, api: Api, namespace: str) -> None:
    ended = document(settled())
    manifest = {**ended, "metadata": {"name": "demo", "namespace": namespace}, "spec": {"dataset": {"uri": "org/data"}}}
    del manifest["status"]
    created = api.create(manifest)
    held = argocd.spec_after(created, "suspend")
    assert api.patch(manifest, {"spec": {"suspend": held["suspend"]}})["spec"] == held
    live = api.patch(manifest, {"status": ended["status"]}, "status")
    again = argocd.spec_after(live, "rerun", "--param", "from=training")["rerun"]
    assert api.patch(manifest, {"spec": {"rerun": again}})["metadata"]["generation"] == 3
    api.patch(manifest, {"status": {"finishedAt": None}}, "status")
    with pytest.raises(RefusedError, match="wait for its end"):
        api.patch(manifest, {"spec": {"rerun": {**again, "id": "too-early"}}})
