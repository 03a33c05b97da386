"""The account, the inputs and the training bundle: restored when they are deleted, never used when they are not ours."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.api.kinds import CLAIM, CONFIGMAP, POD, SERVICE_ACCOUNT
from finetune_operator.core import naming
from finetune_operator.core.decision import Create, Decision, Patch
from finetune_operator.core.manifests.children import content_digest, inputs_content
from finetune_operator.core.manifests.pod import BUNDLE_FILE
from finetune_operator.core.observation import Ref, Rejection, WarningEvent
from finetune_operator.core.plan import plan
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.shared_objects import wanted
from finetune_operator.core.times import stamp
from unit.core.passes import child, condition, edit, failing, fault, go, observed, run_of, stage, world_at
from world import NOW, SETTINGS, World, contents_of

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
    decision = plan(run_of(world), replace(found, objects=objects, contents=contents_of(objects), **changes), LATER)
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
LABELED = {"labels": {naming.MANAGED_BY_LABEL: naming.MANAGED_BY}}
CLAIM_OF_RUN = Ref(CLAIM, "demo-workspace")
REPLACED = "its content is not what the operator wrote, or it can be changed; delete it, and the operator creates it again"
NOT_THE_ACCOUNT = (
    "ServiceAccount finetune-stage: it is not the account of this operator; delete it, or give it the label"
    " app.kubernetes.io/managed-by: finetune-operator, no owner, and automountServiceAccountToken: false"
)
NOT_THE_CLAIM = "claim demo-workspace: it exists and was not created for this run; create the run again with storage.claimName: demo-workspace"
STRANGERS = {
    "inputs without an owner": (foreign(INPUTS), "does not belong to this run; delete it, or use another run name"),
    "inputs of another run": (foreign(INPUTS, ownerReferences=[{**OWNER, "name": "other", "uid": "u"}]), "does not belong to this run"),
    "inputs of ours with other content": (
        {**foreign(INPUTS, ownerReferences=[OWNER]), "immutable": True, "data": {"dataset.json": "{}"}}, REPLACED,
    ),
    "inputs of ours that were not read": (foreign(INPUTS, ownerReferences=[OWNER]), REPLACED),
    "a bundle with other content": ({**foreign(BUNDLE), "immutable": True, "data": {"a": "b"}}, REPLACED),
    "a bundle that can be changed": ({**foreign(BUNDLE), "binaryData": {BUNDLE_FILE: ""}}, REPLACED),
    "a bundle that goes with its owner": (
        {**foreign(BUNDLE, ownerReferences=[OWNER]), "immutable": True, "binaryData": {BUNDLE_FILE: ""}}, "it has an owner",
    ),
    "an account without the label": ({**foreign(ACCOUNT), "automountServiceAccountToken": False}, NOT_THE_ACCOUNT),
    "an account that mounts its token": (foreign(ACCOUNT, **LABELED), NOT_THE_ACCOUNT),
    "an account that goes with its owner": (
        {**foreign(ACCOUNT, **LABELED, ownerReferences=[OWNER]), "automountServiceAccountToken": False}, NOT_THE_ACCOUNT,
    ),
    "a claim that somebody else made": (foreign(CLAIM_OF_RUN), NOT_THE_CLAIM),
    "the claim of an earlier run of the name": (
        foreign(CLAIM_OF_RUN, **LABELED, annotations={naming.RUN_UID_ANNOTATION: "an-earlier-one"}), NOT_THE_CLAIM,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", STRANGERS.values(), ids=STRANGERS)
def test_a_foreign_object_is_never_mounted_and_the_run_resumes_when_it_is_deleted(case: tuple[dict[str, Any], str]) -> None:
    item, words = case
    world = World.new({**SPEC, "storage": {"size": "5Gi"}})
    world.put(item)
    ref = next(one for one in (INPUTS, BUNDLE, ACCOUNT, CLAIM_OF_RUN) if one.name == item["metadata"]["name"])
    for _ in range(4):
        decision = go(world)
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


def test_a_claim_that_the_run_names_is_used_whoever_made_it() -> None:
    world = World.new({**SPEC, "storage": {"claimName": "demo-workspace"}})
    world.put(foreign(CLAIM_OF_RUN))
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"


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


def test_status_has_the_digest_of_every_document() -> None:
    world = World.new(SPEC)
    go(world)
    inputs, digests = world.objects[INPUTS], run_of(world).status["resolved"]["documents"]
    assert {f"{name}.json": digest for name, digest in digests.items()} == {
        key: hashlib.sha256(text.encode()).hexdigest() for key, text in inputs["data"].items()
    }
    assert inputs_content(digests) == content_digest(inputs)
    for change in ({"data": {}}, {"binaryData": {"x": "eA=="}}, {"immutable": False}):
        assert content_digest({**inputs, **change}) != content_digest(inputs)
    go(world)
    environment = {
        one["name"]: one.get("value")
        for one in world.objects[child(world, "dataset")]["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert environment["FINETUNE_DOCUMENT_DIGEST"] == digests["dataset"]


def replaced(world: World, name: str) -> None:
    """The pod of a stage found another content than the operator wrote, and its attempt has ended."""
    words = "FINETUNE_CONFIG: the document has another digest"
    go(world, **failing(world, name, Termination(1, "Error", fault("InputsReplaced", words))))


@pytest.mark.parametrize("ref", [INPUTS, BUNDLE])
def test_a_stage_that_found_other_content_starts_again_once_the_object_is_ours(ref: Ref) -> None:
    world = world_at("training", SPEC)
    ours = world.objects.pop(ref)
    world.objects[ref] = {**ours, "immutable": True, "data": {"training.json": "{}"}}
    replaced(world, "training")
    assert (stage(world, "training").state, stage(world, "training").reason) == ("Retrying", "InputsReplaced")
    go(world)  # the child is removed
    for _ in range(3):
        decision = go(world)
        assert condition(decision.status, "Stalled") == ("True", "NameConflict")
        assert not created(decision)
    assert decision.requeue_after == SETTINGS.progress_seconds
    del world.objects[ref]
    assert ref in created(go(world))
    world.settle()
    assert (run_of(world).status["phase"], stage(world, "training").attempt) == ("Succeeded", 2)


def test_documents_that_this_release_writes_otherwise_are_replaced_in_a_new_attempt() -> None:
    """They contain the label of the experiment, too, which may be edited at any time."""
    world, seen = waiting("training", (MOUNTING,))
    before = run_of(world).status["resolved"]["documents"]
    del world.objects[INPUTS]
    world.run = {**world.run, "metadata": {**world.run["metadata"], "labels": {"finetunerun.io/experiment": "new"}}}
    decision = pass_over(world, seen)
    assert created(decision) == [INPUTS]
    documents = decision.status["resolved"]["documents"]
    assert documents.keys() == before.keys()
    assert not set(documents.values()) & set(before.values())
    assert (stage(world, "training").state, stage(world, "training").reason) == ("Retrying", "ChildLost")
