"""The account, the inputs and the training bundle: restored when they are deleted, never used when they are not ours."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.api.kinds import CONFIGMAP, POD, SERVICE_ACCOUNT
from finetune_operator.core import naming
from finetune_operator.core.decision import Create, Decision, Patch
from finetune_operator.core.manifests.children import content_digest
from finetune_operator.core.observation import Ref, Rejection, WarningEvent
from finetune_operator.core.plan import plan
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.shared_objects import wanted
from finetune_operator.core.times import stamp
from unit.core.passes import child, condition, decide, edit, go, observed, run_of, stage, world_at
from world import NOW, SETTINGS, World

ACCOUNT = Ref(SERVICE_ACCOUNT, "finetune-stage")
INPUTS = Ref(CONFIGMAP, "demo-inputs-1")
BUNDLE = Ref(CONFIGMAP, naming.bundle_name(SETTINGS.bundle_digest))
LATER = NOW + timedelta(seconds=10)
MOUNTING = PodReport("p", placed=True, waiting="ContainerCreating", created_at=stamp(NOW))
SPEC: dict[str, Any] = {
    "dataset": {"uri": "/data.jsonl"}, "evaluation": {"tasks": [], "baseline": True}, "serviceAccountName": "finetune-stage",
}  # fmt: skip


def waiting(name: str, pods: tuple[PodReport, ...]) -> tuple[World, dict[str, Any]]:
    """A run whose stage has a child that is ten seconds old, with ``pods``; what is observed of it."""
    world = world_at(name, SPEC)
    ref = child(world, name)
    world.objects[ref] = {
        **world.objects[ref],
        "metadata": {**world.objects[ref]["metadata"], "creationTimestamp": stamp(NOW)},
    }
    return world, {"pods": {**observed(world).pods, name: pods}}


def pass_over(world: World, seen: dict[str, Any], **changes: Any) -> Decision:
    """A pass that observes the shared objects that are needed, as the loop does."""
    found = observed(world, **seen)
    refs = wanted(run_of(world), found.objects, found.pods, LATER)
    objects = {**found.objects, **{ref: world.objects[ref] for ref in refs if ref in world.objects}}
    decision = plan(run_of(world), replace(found, objects=objects, **changes), LATER)
    world.write_status(decision.status)
    for effect in decision.effects:
        world.apply_effect(effect)
    return decision


def created(decision: Decision) -> list[Ref]:
    return [effect.ref for effect in decision.effects if isinstance(effect, Create)]


CASES = [
    ("dataset", (), ACCOUNT), ("dataset", (MOUNTING,), INPUTS), ("training", (), ACCOUNT), ("training", (MOUNTING,), INPUTS),
    ("training", (MOUNTING,), BUNDLE),
]  # fmt: skip


@pytest.mark.parametrize(("name", "pods", "ref"), CASES, ids=[f"{name}-{ref.name}" for name, _, ref in CASES])
def test_what_was_deleted_under_a_run_comes_back_and_nobody_is_blamed(name: str, pods: tuple[PodReport, ...], ref: Ref) -> None:
    world, seen = waiting(name, pods)
    before = world.objects.pop(ref)
    words = (
        'configmap "{0}" not found'
        if ref.kind == CONFIGMAP
        else 'error looking up service account t/{0}: serviceaccount "{0}" not found'
    )
    about = Ref(POD, "p") if pods else child(world, name)
    warning_events = {about: (WarningEvent("Failed", words.format(ref.name), 9, 9),)}
    decision = pass_over(world, seen, warning_events=warning_events)
    assert created(decision) == [ref]
    assert condition(decision.status, "Stalled")[0] == "False"
    assert {key: world.objects[ref][key] for key in world.objects[ref] if key != "metadata"} == {
        key: before[key] for key in before if key != "metadata"
    }
    assert not created(pass_over(world, seen, warning_events=warning_events)), "once"
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"
    assert stage(world, name).attempt == 1


def test_nothing_more_is_read_while_pods_start_as_they_should() -> None:
    young = replace(MOUNTING, created_at=stamp(LATER))
    for pods in (
        (young,),
        (replace(MOUNTING, phase="Running"),),
        (PodReport("p", unschedulable="no GPU", created_at=stamp(NOW)),),
    ):
        world, seen = waiting("dataset", pods)
        found = observed(world, **seen)
        assert wanted(run_of(world), found.objects, found.pods, LATER) == (), pods
    world, seen = waiting("dataset", ())
    found = observed(world, **seen)
    assert wanted(run_of(world), found.objects, found.pods, NOW + timedelta(seconds=1)) == ()
    assert wanted(run_of(world), found.objects, found.pods, LATER) == (ACCOUNT,)


def test_a_job_does_not_need_the_training_bundle() -> None:
    world, seen = waiting("dataset", (MOUNTING,))
    found = observed(world, **seen)
    assert wanted(run_of(world), found.objects, found.pods, LATER) == (INPUTS,)


def test_a_shared_object_that_cannot_be_created_again_is_reported() -> None:
    world, seen = waiting("dataset", ())
    del world.objects[ACCOUNT]
    decision = pass_over(world, seen, rejected={ACCOUNT: Rejection("exceeded quota: q", forbidden=True)})
    assert condition(decision.status, "Stalled") == ("True", "QuotaExceeded")
    assert created(decision) == [ACCOUNT]


def test_the_bundle_of_an_earlier_release_is_replaced_in_a_new_attempt() -> None:
    world, seen = waiting("training", (MOUNTING,))
    del world.objects[BUNDLE]
    newer = replace(SETTINGS, bundle_digest="f" * 64)
    decision = pass_over(world, seen, settings=newer)
    assert created(decision) == [Ref(CONFIGMAP, naming.bundle_name("f" * 64))]
    assert decision.status["resolved"]["entryDigest"] == "f" * 64
    assert (stage(world, "training").state, stage(world, "training").reason) == ("Retrying", "ChildLost")


# -- not ours ----------------------------------------------------------------------------------------------------------


def foreign(ref: Ref, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": ref.kind.version,
        "kind": ref.kind.name,
        "metadata": {"name": ref.name, "namespace": "team", **metadata},
    }


OWNER = {"kind": "FineTuneRun", "name": "demo", "uid": "run-uid-1", "controller": True}
STRANGERS = {
    "an inputs ConfigMap without an owner": (foreign(INPUTS), None, "does not belong to this run; delete it, or use another run name"),
    "an inputs ConfigMap of another run": (
        foreign(INPUTS, ownerReferences=[{**OWNER, "name": "other", "uid": "u"}]), None, "does not belong to this run",
    ),
    "an inputs ConfigMap of ours with other content": (
        foreign(INPUTS, ownerReferences=[OWNER], annotations={naming.CONTENT_ANNOTATION: "1" * 64}), "2" * 64, "its content is not what",
    ),
    "a bundle with other content": (foreign(BUNDLE), "2" * 64, "its content is not what the operator wrote; delete it"),
    "an account that somebody else made": (foreign(ACCOUNT), None, "it was not created by this operator; delete it, or give it the label"),
}  # fmt: skip


@pytest.mark.parametrize("case", STRANGERS.values(), ids=STRANGERS)
def test_a_foreign_object_is_never_mounted_and_the_run_resumes_when_it_is_deleted(
    case: tuple[dict[str, Any], str | None, str],
) -> None:
    item, content, words = case
    world = World.new(SPEC)
    world.put(item)
    ref = next(one for one in (INPUTS, BUNDLE, ACCOUNT) if one.name == item["metadata"]["name"])
    contents = {ref: content} if content else {}
    for _ in range(4):
        decision = go(world, contents=contents)
        assert not world.children()
    assert condition(decision.status, "Stalled") == ("True", "NameConflict")
    assert condition(decision.status, "WorkspaceReady") == ("Unknown", "NameConflict")
    assert words in stage(world, "workspace").message
    assert not decision.effects
    assert decision.requeue_after == SETTINGS.progress_seconds
    world.remove(ref)
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"
    assert condition(run_of(world).status, "Stalled")[0] == "False"


def test_an_inputs_configmap_of_an_earlier_run_of_the_name_is_waited_for() -> None:
    world = World.new(SPEC)
    world.put(foreign(INPUTS, ownerReferences=[{**OWNER, "uid": "an-earlier-one"}]))
    go(world)
    decision = go(world)
    assert (condition(decision.status, "Stalled")[0], decision.requeue_after) == ("False", 2.0)
    assert "earlier run" in stage(world, "workspace").message
    world.remove(INPUTS)
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"


def test_no_stage_of_a_rerun_starts_before_the_inputs_of_the_round_are_ours() -> None:
    world = World.new(SPEC)
    world.settle()
    before, inputs = set(world.children()), Ref(CONFIGMAP, "demo-inputs-2")
    world.put(foreign(inputs))
    edit(world, rerun={"id": "again", "from": "training"})
    for _ in range(4):
        decision = go(world)
    assert set(world.children()) == before
    assert condition(decision.status, "Stalled") == ("True", "NameConflict")
    world.remove(inputs)
    world.settle()
    assert (run_of(world).status["phase"], run_of(world).status["round"]) == ("Succeeded", 2)


def test_what_an_earlier_release_wrote_is_ours() -> None:
    """It did not write the digest of the content."""
    world = World.new(SPEC)
    go(world)
    metadata = {name: value for name, value in world.objects[INPUTS]["metadata"].items() if name != "annotations"}
    world.objects[INPUTS] = {**world.objects[INPUTS], "metadata": metadata}
    go(world, contents={INPUTS: "2" * 64, BUNDLE: SETTINGS.bundle_digest})
    assert stage(world, "workspace").state == "Succeeded"


def test_one_that_takes_the_place_of_ours_is_not_mounted_by_a_pod_that_has_not_started() -> None:
    world, seen = waiting("training", (MOUNTING,))
    ours = world.objects[INPUTS]
    world.objects[INPUTS] = foreign(INPUTS)
    decision = pass_over(world, seen)
    held = Patch(child(world, "training"), {
        "metadata": {"annotations": {naming.HELD_ANNOTATION: "finetune-operator"}}, "spec": {"suspend": True},
    })  # fmt: skip
    assert decision.effects == (held,)
    assert condition(decision.status, "Stalled") == ("True", "NameConflict")
    nothing = {"pods": {}}
    for _ in range(2):
        decision = pass_over(world, nothing)
        assert not decision.effects
        assert condition(decision.status, "Stalled") == ("True", "NameConflict")
    del world.objects[INPUTS]
    decision = pass_over(world, nothing)
    assert created(decision) == [INPUTS]
    assert any(isinstance(effect, Patch) and effect.patch["spec"] == {"suspend": False} for effect in decision.effects)
    assert world.objects[INPUTS]["data"] == ours["data"]
    world.settle()
    assert (run_of(world).status["phase"], stage(world, "training").attempt) == ("Succeeded", 1)


def test_a_held_child_of_a_suspended_run_reads_nothing_more() -> None:
    world, seen = waiting("training", ())
    edit(world, suspend=True)
    go(world)
    found = observed(world, **seen)
    assert wanted(run_of(world), found.objects, found.pods, LATER) == ()


def test_the_digest_of_a_configmap_is_that_of_what_it_holds() -> None:
    world = World.new(SPEC)
    go(world)
    inputs = world.objects[INPUTS]
    assert inputs["metadata"]["annotations"][naming.CONTENT_ANNOTATION] == content_digest(inputs)
    for change in ({"data": {}}, {"binaryData": {"x": "eA=="}}, {"immutable": False}):
        assert content_digest({**inputs, **change}) != content_digest(inputs)
    assert decide(world).status["stages"]
