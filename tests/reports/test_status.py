"""Status of a run for users and tools: conditions, phase, columns, Events, remedies."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import finetune_stages
from finetune_operator.api import reasons as control
from finetune_operator.api.finetunerun import FROZEN_SECTIONS
from finetune_operator.api.stages import RERUN_TARGETS
from finetune_operator.api.status import UNOBSERVED
from finetune_operator.core.observation import WarningEvent
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.remedies import Failed, hint
from finetune_operator.core.resolve import effective_values
from finetune_operator.core.resolved_spec import ResolvedSpec
from kstatus import kstatus
from reports.report import Report, reports
from unit.core.passes import condition, decide, edit, failing, fault, go, run_of, world_at
from world import MINIMAL, SETTINGS, World

OWN_CLAIM = {**MINIMAL, "storage": {"size": "1Gi"}}
LONG_AGO = "2026-01-01T00:00:00Z"
NO_GPU = PodReport("p", unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", created_at=LONG_AGO)
LOST = 'persistentvolumeclaim "demo-workspace" bound to non-existent persistentvolume "pv-1"'


def claim(world: World, **changes: Any) -> World:
    """Return the world with ``changes`` to its claim."""
    ref = next(ref for ref in world.objects if ref.kind.name == "PersistentVolumeClaim")
    old = world.objects[ref]
    world.objects[ref] = {**old, **changes, "metadata": {**old["metadata"], **changes.get("metadata", {})}}
    return world


def at_claim(phase: str | None = None, **metadata: str) -> World:
    """A run whose claim exists, in a given phase when it is observed."""
    world = World.new(OWN_CLAIM, claim=False)
    go(world)
    claim(world, status={"phase": phase} if phase else {}, metadata=metadata)
    go(world)
    return world


def at_training() -> World:
    world = world_at("training", OWN_CLAIM)
    del world.objects[next(ref for ref in world.objects if ref.name == "workspace")]
    return world


def seen(world: World, stage: str, pod: PodReport, warning_event: WarningEvent | None = None) -> World:
    """The world after a pass that saw this pod, and this of the claim."""
    ref = next(ref for ref in world.objects if ref.kind.name == "PersistentVolumeClaim")
    go(world, pods={stage: (pod,)}, warning_events={ref: (warning_event,)} if warning_event else {})
    return world


def suspended(passes: int) -> World:
    world = world_at("training")
    edit(world, suspend=True)
    for _ in range(passes):
        go(world)
    return world


def suspended_before_the_child() -> World:
    """Suspended when a Job was intended, and not made yet."""
    world = World.new()
    go(world)
    world.write_status(decide(world).status)
    edit(world, suspend=True)
    go(world)
    return world


def suspended_before_the_workspace() -> World:
    world = World.new(OWN_CLAIM)
    world.write_status(decide(world).status)
    edit(world, suspend=True)
    go(world)
    return world


# -- the workspace -----------------------------------------------------------------------------------------------------

UNBOUND = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."
NO_CLASS = WarningEvent("FailedBinding", "no persistent volumes available for this claim and no storage class is set")


@reports(
    Report("a-claim-that-waits-for-its-first-consumer", "own", at_claim, ("Unknown", "ClaimNotBound")),
    Report("a-claim-that-is-pending", "own", lambda: at_claim("Pending"), ("Unknown", "ClaimNotBound")),
    Report("a-claim-that-is-bound", "own", lambda: at_claim("Bound"), ("True", "Succeeded")),
    Report("a-claim-that-lost-its-volume", "own", lambda: at_claim("Lost"), ("False", "ClaimLost")),
    Report("a-claim-that-is-being-deleted", "own", lambda: at_claim("Bound", deletionTimestamp=LONG_AGO), ("False", "ClaimLost")),
    Report("the-first-pod-runs", "own", at_training, ("True", "Succeeded")),
    Report("the-first-pod-has-failed-already", "own", lambda: seen(at_claim(), "dataset", PodReport(
        "p", phase="Failed", termination=Termination(1))), ("True", "Succeeded")),
    Report("the-first-pod-waits", "own", lambda: seen(at_claim(), "dataset", PodReport("p")), ("Unknown", "ClaimNotBound")),
    Report("nothing-provides-a-volume", "own", lambda: seen(at_claim(), "dataset", PodReport("p", unschedulable=UNBOUND), NO_CLASS),
        ("False", "ClaimPending")),
    Report("the-volume-is-lost-while-the-run-goes-on", "own", lambda: seen(at_training(), "training", PodReport(
        "p", unschedulable=f"0/1 nodes are available: {LOST}.", created_at=LONG_AGO)), ("False", "ClaimLost")),
)  # fmt: skip
def test_workspace_ready_is_so_once_the_claim_is_bound(report: Report) -> None:
    world = report.given()
    assert condition(world.run["status"], "WorkspaceReady") == report.expected
    if report.expected[0] == "False":
        assert condition(world.run["status"], "Stalled") == ("True", report.expected[1])
        assert kstatus(world.run) == "Failed"


def test_pods_are_created_before_the_claim_is_bound() -> None:
    assert {ref.name for ref in at_claim("Pending").children()} == {"demo-dataset-1-1", "demo-model-1-1"}
    assert not at_claim("Lost").children()


# -- kstatus and the phase ---------------------------------------------------------------------------------------------


def late_baseline() -> World:
    """Training and evaluation are done, and the baseline is not."""
    world = world_at("training")
    go(world)
    for _ in range(3):
        for ref in world.active():
            if world.stage_of(ref) != "baseline":
                world.finish(ref)
        go(world)
    records = run_of(world).stages
    assert (records["evaluation"].state, records["baseline"].state) == ("Succeeded", "Running")
    return world


def late_evaluation(code: int) -> World:
    world = world_at("evaluation")
    world.finish(next(ref for ref in world.active() if world.stage_of(ref) == "evaluation"), exit_code=code, message="")
    decision = decide(world)
    world.write_status(decision.status)
    assert run_of(world).stages["evaluation"].state == "Retrying"
    return world


def unseen() -> World:
    world = World.new()
    world.write_status(UNOBSERVED)
    return world


def rejected() -> World:
    world = World.new({**MINIMAL, "gate": {"requirements": [{"metric": "holdout.bits_per_byte", "max": 1.0}]}})
    world.settle()
    return world


def ended(reason: str = "") -> World:
    world = world_at("dataset")
    if reason:
        go(world, **failing(world, "dataset", Termination(65, "Error", fault(reason, "There is no row."))))
    world.settle()
    return world


State = Callable[[], World]


@reports(
    Report("nobody-has-seen-it", "fluxcd/kustomize-controller#325", unseen, (None, None, "InProgress")),
    Report("an-image-is-missing-in-the-middle", "own", lambda: seen(world_at("training"), "training", PodReport(
        "p", waiting="ImagePullBackOff")), ("Training", ("False", "ImagePullFailed"), "Failed")),
    Report("no-gpu-is-free", "own", lambda: seen(world_at("training"), "training", NO_GPU),
        ("Training", ("True", "GPUUnavailable"), "InProgress")),
    Report("suspended-and-still-running", "own", lambda: suspended(1), ("Suspended", ("True", "Suspending"), "InProgress")),
    Report("suspended-and-stopped", "own", lambda: suspended(3), ("Suspended", ("False", "Suspended"), "Current")),
    Report("suspended-before-a-child-was-made", "own", suspended_before_the_child,
        ("Suspended", ("False", "Suspended"), "Current")),
    Report("suspended-before-the-workspace-was-made", "own", suspended_before_the_workspace,
        ("Suspended", ("False", "Suspended"), "Current")),
    Report("the-baseline-ends-last", "own", late_baseline, ("Evaluating", ("True", "Running"), "InProgress")),
    Report("an-evaluation-is-tried-again", "own", lambda: late_evaluation(1), ("Evaluating", ("True", "Running"), "InProgress")),
    Report("succeeded", "own", ended, ("Succeeded", ("False", "RunFinished"), "Current")),
    Report("rejected", "own", rejected, ("Rejected", ("False", "RunFinished"), "Failed")),
    Report("failed", "own", lambda: ended("DatasetEmpty"), ("Failed", ("False", "RunFinished"), "Failed")),
)  # fmt: skip
def test_phase_reconciling_and_kstatus(report: Report) -> None:
    world = report.given()
    status = world.run["status"]
    found = condition(status, "Reconciling") if status.get("conditions") else None
    assert (status.get("phase"), found, kstatus(world.run)) == report.expected


# -- columns and Events ------------------------------------------------------------------------------------------------


def column(name: str, **spec: Any) -> str:
    world = World.new({**MINIMAL, **spec})
    go(world)
    found: str = world.run["status"]["summary"][name]
    return found


@reports(
    Report("a-path-of-this-machine", "own", "/home/me/models/tiny/", "tiny"),
    Report("a-file-address", "own", "file:///models/tiny", "tiny"),
    Report("an-id-of-the-hub", "own", "org/tiny", "org/tiny"),
    Report("an-address-of-the-hub", "own", "hf://org/tiny", "org/tiny"),
)
def test_the_column_model_before_anything_is_registered(report: Report) -> None:
    assert column("model", model={"uri": report.given}) == report.expected


def test_the_column_model_of_a_registered_model() -> None:
    assert ended().run["status"]["summary"]["model"] == "osft-model:1.0.0"


def test_the_uri_of_the_volume_names_the_claim() -> None:
    for spec, name in ((MINIMAL, "workspace"), (OWN_CLAIM, "demo-workspace")):
        world = World.new(spec)
        go(world)
        assert world.run["status"]["resolved"]["volumeUri"] == f"file:///{name}"


def test_a_failure_names_its_stage_in_the_column_and_in_the_event() -> None:
    world = world_at("dataset")
    decision = go(world, **failing(world, "dataset", Termination(65, "Error", fault("DatasetEmpty", "There is no row."))))
    told = [event for event in (*decision.events, *go(world).events) if event.type == "Warning" and event.posted]
    assert [(event.reason, event.message) for event in told][-1] == ("DatasetEmpty", "dataset: There is no row.")
    assert world.run["status"]["summary"]["message"] == "dataset: DatasetEmpty: There is no row."


def test_a_failure_of_the_gate_names_it_once() -> None:
    world = World.new({**MINIMAL, "gate": {"requirements": [{"metric": "holdout.words", "min": 0.5}]}})
    told = []
    for _ in range(12):
        told += [event.message for event in go(world).events if event.reason == "MetricMissing" and event.posted]
        for ref in world.active():
            world.finish(ref)
    message = "holdout.words was not measured; use one of holdout.bits_per_byte."
    assert world.run["status"]["summary"]["message"] == f"gate: MetricMissing: {message}"
    assert told == [f"gate: {message}"]


def test_the_end_of_a_run_without_registry_shows_the_path_of_the_model() -> None:
    world = World.new(MINIMAL)
    place = {"settings": SETTINGS.__class__(**{**SETTINGS.__dict__, "local_registry": False})}
    events = []
    for _ in range(12):
        decision = world.decide(**place)
        world.write_status(decision.status)
        for effect in decision.effects:
            world.apply_effect(effect)
        events += decision.events
        for ref in world.active():
            world.finish(ref)
    (end,) = [event for event in events if event.reason == "RunSucceeded"]
    assert end.message == run_of(world).status["model"]["uri"]


# -- what to do next ---------------------------------------------------------------------------------------------------


def advice(reason: str, stage: str, mode: str = "cluster", **spec: Any) -> str:
    values, _ = effective_values({**MINIMAL, **spec}, SETTINGS)
    return hint(control.REASONS[reason], Failed(stage, ResolvedSpec(values), mode))  # type: ignore[arg-type]


@reports(
    Report("drop-is-set-already", "own", ("BadRow", "dataset", {"dataset": {"uri": "/d", "badRows": {"policy": "Drop"}}}),
        "Correct the row that the message names. Then rerun from dataset."),
    Report("drop-is-not-set", "own", ("BadRow", "dataset", {}),
        "Correct the row that the message names, or set dataset.badRows.policy to Drop. Then rerun from dataset."),
    Report("a-bad-row-of-a-task-file", "own", ("BadRow", "evaluation", {}),
        "Correct the row that the message names. Then rerun from evaluation."),
    Report("a-run-that-used-up-its-attempts", "own", ("DatasetUnreachable", "dataset", {}),
        "Check the address in dataset.uri, the network and the proxy. Then rerun from dataset."),
    Report("the-baseline-is-no-stage-to-rerun-from", "own", ("Crashed", "baseline", {}),
        "Read the last lines of the log; if the program is at fault, file a bug report with them. Then rerun from evaluation."),
    Report("tokenization-without-its-data", "own", ("TooManyRowsLeftOut", "tokenization", {}),
        "Raise training.maxSeqLen (above 64,000 together with training.maxTokensPerGPU), shorten or correct the rows, or raise dataset.badRows.share."
        " Then rerun from dataset."),
    Report("tokenization-in-too-little-memory", "own", ("OutOfMemoryHost", "tokenization", {}),
        "Use a smaller data set. Then rerun from dataset."),
    Report("tokenization-on-a-full-volume", "own", ("WorkspaceFull", "tokenization", {}),
        "Enlarge the claim workspace, or delete old runs and caches from its volume. Then rerun from training."),
    Report("tokenization-of-a-wrong-task-file", "own", ("TaskInvalid", "tokenization", {}),
        "Correct the file that the message names. Then rerun from training."),
    Report("tokenization-with-no-chat-template", "own", ("ChatTemplateMissing", "tokenization", {}),
        "Use the instruct or chat variant of the model, or add a chat template to its tokenizer. Then rerun from model."),
    Report("training-with-a-broken-model", "own", ("ModelCorrupt", "training", {}),
        "Correct what the message names, or download or save the model again. Then rerun from model."),
    Report("a-metric-that-was-not-measured", "own", ("MetricMissing", "gate", {}),
        "Name one of the metrics that the message lists, or add its task to evaluation.tasks; then rerun from gate or evaluation."),
)  # fmt: skip
def test_a_hint_applies_in_the_state_of_the_run(report: Report) -> None:
    reason, stage, spec = report.given
    assert advice(reason, stage, **spec) == report.expected


@pytest.mark.parametrize("stage", ["tokenization", "training", "evaluation"])
@pytest.mark.parametrize("reason", ["RemoteCode", "ModelCorrupt", "ChatTemplateInvalid"])
def test_a_new_model_takes_a_rerun_that_may_change_it(reason: str, stage: str) -> None:
    first = advice(reason, stage).rpartition(" ")[2].rstrip(".")
    assert first in FROZEN_SECTIONS["model"]


def test_stage_programs_name_stages_from_which_a_rerun_starts() -> None:
    sources = Path(finetune_stages.__file__).parent.rglob("*.py")
    named = {name for source in sources for name in re.findall(r"rerun from (?!stage \{)(?:stage )?(\w+)", source.read_text())}
    assert named
    assert named <= set(RERUN_TARGETS)
