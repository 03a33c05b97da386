"""Blockers: each is reported with its own reason, waited for, and removed when it is fixed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from finetune_operator.api import reasons
from finetune_operator.api.kinds import CLAIM, POD
from finetune_operator.core.blockers import reason_of_rejection, unexplained
from finetune_operator.core.observation import Ref, Rejection, WarningEvent
from finetune_operator.core.plan import hold_forbidden
from finetune_operator.core.pod_report import PodReport
from finetune_operator.core.times import stamp
from world import NOW, World

from .passes import child, condition, decide, go, observed, run_of, stage, world_at

CLAIMED = Ref(CLAIM, "workspace")
UNBOUND = "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found"
SCHEDULER = {
    "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.": "GPUUnavailable",
    "0/3 nodes are available: 3 Insufficient amd.com/gpu.": "GPUUnavailable",
    "0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient memory.": "NodesTooSmall",
    "0/3 nodes are available: 3 node(s) had untolerated taint {gpu: true}.": "Unschedulable",
    'persistentvolumeclaim "data" not found': "ClaimNotFound",
}
CONTROLLERS = {
    'Error creating: pods "x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=4, limited: pods=4': "QuotaExceeded",
    'Error creating: pods "x" is forbidden: failed quota: team: must specify limits.cpu for: stage': "QuotaExceeded",
    'Error creating: pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true': "PodSecurity",
    'pods "x" is forbidden: error looking up service account team/me: serviceaccount "me" not found': "ServiceAccountNotFound",
    "the sky is falling": "ChildRejected",
}
VOLUMES = {
    ("ProvisioningFailed", 'storageclass.storage.k8s.io "fast" not found', 0): "StorageClassNotFound",
    ("ProvisioningFailed", "Only support ReadWriteOnce access mode", 0): "NoSharedVolumes",
    ("ProvisioningFailed", "rpc error: MULTI_NODE_MULTI_WRITER not supported", 0): "NoSharedVolumes",
    ("ProvisioningFailed", "rpc error: server is down", 0): "ClaimPending",
    ("FailedBinding", "no persistent volumes available for this claim and no storage class is set", 0): "ClaimPending",
    ("ExternalProvisioning", "waiting for a volume to be created by the external provisioner 'x'", 31): "ClaimPending",
    ("ExternalProvisioning", "waiting for a volume to be created by the external provisioner 'x'", 3): None,
    ("WaitForFirstConsumer", "waiting for first consumer to be created before binding", 99): None,
}
MOUNTS = {
    'MountVolume.SetUp failed for volume "tasks" : configmap "tasks" not found': "SecretMissing",
    'MountVolume.SetUp failed for volume "x" : references non-existent secret key: y': "SecretMissing",
    "Unable to attach or mount volumes: timed out": "StartFailed",
}


LONG_AGO = stamp(NOW - timedelta(minutes=1))


def stalled_condition(world: World, **changes: Any) -> tuple[str, str]:
    """Status and reason of the condition Stalled."""
    return condition(decide(world, **changes).status, "Stalled")


@pytest.mark.parametrize(("sentence", "reason"), SCHEDULER.items())
def test_messages_of_the_scheduler(sentence: str, reason: str) -> None:
    world = world_at("dataset")
    assert stalled_condition(world, pods={"dataset": (PodReport("p", unschedulable=sentence, created_at=LONG_AGO),)}) == (
        "True",
        reason,
    )


def test_a_pod_that_the_scheduler_has_only_just_seen_is_no_blocker() -> None:
    world = world_at("dataset")
    young = PodReport("p", unschedulable=next(iter(SCHEDULER)), created_at=stamp(NOW))
    assert stalled_condition(world, pods={"dataset": (young,)})[0] == "False"
    assert decide(world, pods={"dataset": (young,)}).requeue_after == 2.5


@pytest.mark.parametrize(("sentence", "reason"), CONTROLLERS.items())
def test_messages_of_the_job_controller(sentence: str, reason: str) -> None:
    world = world_at("dataset")
    warning_events = {child(world, "dataset"): (WarningEvent("FailedCreate", sentence),)}
    decision = decide(world, pods={}, warning_events=warning_events)
    assert condition(decision.status, "Stalled") == ("True", reason)
    assert condition(decision.status, "DatasetReady") == ("Unknown", reason)
    assert [event.reason for event in decision.events] == [reason]
    assert "failure" not in decision.status


OUTAGES = (
    'Error creating: Post "https://10.0.0.1:443/api/v1/namespaces/t/pods": dial tcp 10.0.0.1:443: connect: connection refused',
    'Internal error occurred: failed calling webhook "v.example.com": Post "https://v.t.svc:443/": context deadline exceeded',
    'Internal error occurred: failed calling webhook "v.example.com": no endpoints available for service "v"',
    "etcdserver: leader changed",
    "the server is currently unable to handle the request",
    'Operation cannot be fulfilled on jobsets "x": the object has been modified; please apply your changes to the latest version',
    "http2: client connection lost: unexpected EOF",
)


@pytest.mark.parametrize("sentence", OUTAGES)
def test_a_restart_of_the_api_server_is_not_a_rejection(sentence: str) -> None:
    world = world_at("dataset")
    warning_events = {child(world, "dataset"): (WarningEvent("FailedCreate", sentence, seconds=20, active_seconds=20),)}
    assert stalled_condition(world, pods={}, warning_events=warning_events)[0] == "False"
    warning_events = {child(world, "dataset"): (WarningEvent("FailedCreate", sentence, seconds=600, active_seconds=0),)}
    assert stalled_condition(world, pods={}, warning_events=warning_events)[0] == "False", "said once, long ago"
    warning_events = {child(world, "dataset"): (WarningEvent("FailedCreate", sentence, seconds=40, active_seconds=31),)}
    assert stalled_condition(world, pods={}, warning_events=warning_events) == ("True", "ApiUnavailable")


@pytest.mark.parametrize("sentence", OUTAGES)
@pytest.mark.parametrize(
    "answer", ['admission webhook "w" denied the request: {}', 'pods "p" is forbidden: {}', 'Pod "p" is invalid: {}']
)
def test_an_answer_of_the_api_server_is_no_outage_whatever_its_words(answer: str, sentence: str) -> None:
    """A policy may cite the name of an image, or the error of a service that it calls: the object is rejected nevertheless."""
    message = answer.format(sentence)
    assert reason_of_rejection(Rejection(message)) == (reasons.CHILD_REJECTED, False)
    world = world_at("dataset")
    warning_events = {child(world, "dataset"): (WarningEvent("FailedCreate", f"Error creating: {message}", seconds=1),)}
    assert stalled_condition(world, pods={}, warning_events=warning_events) == ("True", "ChildRejected")


def test_what_is_rejected_behind_a_restart_is_reported() -> None:
    world = world_at("dataset")
    heard = (WarningEvent("FailedCreate", OUTAGES[0]), WarningEvent("FailedCreate", next(iter(CONTROLLERS))))
    assert stalled_condition(world, pods={}, warning_events={child(world, "dataset"): heard}) == ("True", "QuotaExceeded")


@pytest.mark.parametrize(("said", "reason"), VOLUMES.items())
def test_what_becomes_of_the_claim(said: tuple[str, str, float], reason: str | None) -> None:
    world = world_at("dataset")
    pods = {"dataset": (PodReport("p", unschedulable=UNBOUND),)}
    expected = ("True", reason) if reason else ("False", "Running")
    assert stalled_condition(world, pods=pods, warning_events={CLAIMED: (WarningEvent(*said),)}) == expected


@pytest.mark.parametrize(("sentence", "reason"), MOUNTS.items())
def test_messages_of_the_kubelet_about_volumes(sentence: str, reason: str) -> None:
    world = world_at("dataset")
    pods = {"dataset": (PodReport("p", placed=True, waiting="ContainerCreating"),)}
    assert stalled_condition(world, pods=pods, warning_events={Ref(POD, "p"): (WarningEvent("FailedMount", sentence),)}) == (
        "True",
        reason,
    )


def test_a_blocker_states_its_remedy_and_is_removed_afterwards() -> None:
    world = world_at("dataset")
    pods = {"dataset": (PodReport("p", unschedulable=next(iter(SCHEDULER)), created_at=LONG_AGO),)}
    decision = go(world, pods=pods)
    (stalled,) = [entry for entry in decision.status["conditions"] if entry["type"] == "Stalled"]
    assert "training.gpusPerWorker" in stalled["message"]
    assert decide(world, pods=pods).events == (), "told once"
    assert condition(go(world).status, "Stalled")[0] == "False"


# -- whose Events are read ---------------------------------------------------------------------------------------------


def objects_to_read(
    world: World, pods: tuple[PodReport, ...], stage_name: str = "dataset", seconds: float = 10
) -> tuple[Ref, ...]:
    """Whose Events the next pass asks for."""
    seen = observed(world)
    made = {**seen.objects[child(world, stage_name)]}
    made["metadata"] = {**made["metadata"], "creationTimestamp": stamp(NOW)}
    objects = {**seen.objects, child(world, stage_name): made}
    return unexplained(run_of(world), objects, {stage_name: pods}, NOW + timedelta(seconds=seconds))


def test_a_child_without_pods_is_asked_about_when_controllers_have_had_their_time() -> None:
    world = world_at("dataset")
    assert objects_to_read(world, (), seconds=1) == ()
    assert objects_to_read(world, ()) == (child(world, "dataset"),)
    assert objects_to_read(world, (PodReport("p", phase="Running", placed=True),)) == ()


def test_a_rank_that_is_missing_is_asked_about() -> None:
    world = world_at("training", {"dataset": {"uri": "/d.jsonl"}, "training": {"workers": 2, "algorithm": "sft"}})
    running = PodReport("p", phase="Running", placed=True)
    assert objects_to_read(world, (running,), "training") == (child(world, "training"),)
    assert objects_to_read(world, (running, running), "training") == ()


def test_a_pod_that_waits_for_the_claim_or_for_its_mounts() -> None:
    world = world_at("dataset")
    assert objects_to_read(world, (PodReport("p"),)) == (CLAIMED,)
    assert objects_to_read(world, (PodReport("p", unschedulable=UNBOUND),)) == (CLAIMED,)
    assert objects_to_read(world, (PodReport("p", unschedulable="no GPU"),)) == ()
    mounting = PodReport("p", placed=True, waiting="ContainerCreating", created_at=stamp(NOW))
    assert objects_to_read(world, (mounting,), seconds=1) == ()
    assert objects_to_read(world, (mounting,)) == (Ref(POD, "p"),)
    assert objects_to_read(world, (replace(mounting, waiting="ErrImagePull"),)) == ()


def test_nobody_is_asked_about_a_child_that_is_held_or_has_ended() -> None:
    world = world_at("dataset")
    ref = child(world, "dataset")
    for change in ({"spec": {"suspend": True}}, {"status": {"conditions": [{"type": "Complete", "status": "True"}]}}):
        world.objects[ref] = {**world.objects[ref], **change}
        assert objects_to_read(world, ()) == ()


# -- pods that never appear, without an Event -----------------------------------------------------------------------------


def without_pods(world: World, stage_name: str, pods: tuple[PodReport, ...] = (), seconds: float = 30, **changes: Any) -> Any:
    """The decision about a child that was made that long ago."""
    ref = child(world, stage_name)
    metadata = {**world.objects[ref]["metadata"], "creationTimestamp": stamp(NOW)}
    world.objects[ref] = {**world.objects[ref], "metadata": metadata, **changes}
    return decide(world, NOW + timedelta(seconds=seconds), pods={stage_name: pods} if pods else {})


@pytest.mark.parametrize(
    ("stage_name", "child_name", "look"),
    [
        ("dataset", "Job demo-dataset-1-1", "job/demo-dataset-1-1"),
        ("training", "TrainJob demo-train-1-1", "trainjob/demo-train-1-1 jobset/demo-train-1-1 job/demo-train-1-1-node-0"),
    ],
)
def test_a_child_without_pods_is_reported_with_what_to_check(stage_name: str, child_name: str, look: str) -> None:
    world = world_at(stage_name)
    decision = without_pods(world, stage_name)
    (stalled,) = [entry for entry in decision.status["conditions"] if entry["type"] == "Stalled"]
    assert (stalled["status"], stalled["reason"]) == ("True", "NoPods")
    assert stalled["message"].startswith(f"{child_name}: 0 of 1 pods exist after 30 seconds or more; run oc describe")
    assert f"run oc describe {look} -n team and read the conditions and Events. Also read the logs" in stalled["message"]
    assert "failure" not in decision.status
    assert [event.reason for event in decision.events] == ["NoPods"]
    world.write_status(decision.status)
    assert condition(go(world).status, "Stalled")[0] == "False", "its pod is there"


def test_events_take_precedence() -> None:
    world = world_at("dataset")
    said = {child(world, "dataset"): (WarningEvent("FailedCreate", "exceeded quota: team"),)}
    assert stalled_condition(world, pods={}, warning_events=said) == ("True", "QuotaExceeded")


def test_a_rank_that_does_not_appear_is_counted() -> None:
    world = world_at("training", {"dataset": {"uri": "/d.jsonl"}, "training": {"workers": 2, "algorithm": "sft"}})
    decision = without_pods(world, "training", (PodReport("p", phase="Running", placed=True),))
    (message,) = [entry["message"] for entry in decision.status["stages"] if entry["name"] == "training"]
    assert message.startswith("TrainJob demo-train-1-1: 1 of 2 pods exist after 30 seconds or more")
    both = (PodReport("p", phase="Running"), PodReport("q", 1, phase="Running"))
    assert condition(without_pods(world, "training", both).status, "Stalled")[0] == "False"


@pytest.mark.parametrize(
    ("seconds", "changes"),
    [
        (29, {}),
        (99, {"spec": {"suspend": True}}),
        (99, {"status": {"conditions": [{"type": "Suspended", "status": "True", "lastTransitionTime": stamp(NOW)}]}}),
        (99, {"status": {"conditions": [
            {"type": "Suspended", "status": "False", "lastTransitionTime": stamp(NOW + timedelta(seconds=70))}]}}),
    ],
    ids=["just made", "held", "queued", "just let go on"],
)  # fmt: skip
def test_a_child_that_has_no_pods_to_have_is_not_blamed(seconds: float, changes: dict[str, Any]) -> None:
    assert condition(without_pods(world_at("dataset"), "dataset", (), seconds, **changes).status, "Stalled")[1] != "NoPods"


def test_a_child_without_pods_is_looked_at_when_its_time_is_over() -> None:
    world = world_at("dataset")
    assert without_pods(world, "dataset", seconds=25).requeue_after == 5.0
    assert without_pods(world, "dataset", seconds=1).requeue_after == 2.5


# -- rejected by the API server ----------------------------------------------------------------------------------------

REFUSALS = {
    'admission webhook "v" denied the request: ClusterTrainingRuntime.trainer.kubeflow.org "x" not found': ("RuntimeNotFound", False, True),
    'admission webhook "v" denied the request: the name is too long': ("ChildRejected", False, False),
    'admission webhook "v" denied the request: image name "eof-registry/EOF" not allowed': ("ChildRejected", False, False),
    'admission webhook "v" denied the request: the license check timed out': ("ChildRejected", False, False),
    'Job.batch "j" is invalid: spec.template.spec.containers[0].image: Invalid value: "EOF"': ("ChildRejected", False, False),
    'jobs.batch "j" is forbidden: too many requests for GPUs in namespace t': ("ChildRejected", True, True),
    "Unauthorized": ("ChildRejected", True, True),
    'jobs.batch is forbidden: User "op" cannot create resource "jobs" in API group "batch" in the namespace "t"': ("Forbidden", True, True),
    'jobs.batch "j" is forbidden: exceeded quota: q, requested: count/jobs.batch=1': ("QuotaExceeded", True, True),
    'jobs.batch "j" is forbidden: unable to create new content in namespace t because it is being terminated': ("ChildRejected", True, True),
}  # fmt: skip


@pytest.mark.parametrize(("message", "expected"), REFUSALS.items())
def test_objects_that_the_api_server_rejects(message: str, expected: tuple[str, bool, bool]) -> None:
    reason, forbidden, waits = expected
    found = reason_of_rejection(Rejection(message, forbidden))
    assert (found[0].name, found[1]) == (reason, waits)


def test_a_rejected_child_keeps_the_condition_while_it_is_retried() -> None:
    world = World.new({"dataset": {"uri": "/d.jsonl"}})
    for _ in range(3):
        decision = decide(world)
        world.write_status(decision.status)
        if any(effect.ref.kind.name == "Job" for effect in decision.effects):
            break
        for effect in decision.effects:
            world.apply_effect(effect)
    ref = child(world, "dataset")
    rejected = {ref: Rejection('jobs.batch "j" is forbidden: exceeded quota: q', forbidden=True)}
    world.write_status(decide(world, rejected=rejected).status)
    assert condition(world.run["status"], "Stalled") == ("True", "QuotaExceeded")
    before = world.run["status"]
    decision = decide(world)
    assert decision.status == before, "the next try writes nothing"
    assert ref in [effect.ref for effect in decision.effects]
    for effect in decision.effects:
        world.apply_effect(effect)
    go(world)
    assert condition(world.run["status"], "Stalled")[0] == "False"
    assert stage(world, "dataset").reason == "Running"


def test_a_workspace_that_is_rejected_keeps_its_condition_too() -> None:
    world = World.new({"dataset": {"uri": "/d.jsonl"}, "storage": {"size": "1Gi"}})
    world.write_status(decide(world).status)
    rejected = {
        Ref(CLAIM, "demo-workspace"): Rejection('persistentvolumeclaims "w" is forbidden: exceeded quota: q', forbidden=True)
    }
    world.write_status(decide(world, rejected=rejected).status)
    assert condition(world.run["status"], "WorkspaceReady") == ("Unknown", "QuotaExceeded")
    assert decide(world).status == world.run["status"]
    go(world)
    go(world)
    assert stage(world, "workspace").state == "Succeeded"


def test_a_run_whose_pods_may_not_be_read_reports_it() -> None:
    world = world_at("dataset")
    decision = hold_forbidden(run_of(world), 'cannot get resource "pods" in the namespace "t"', NOW)
    assert condition(decision.status, "Stalled") == ("True", "Forbidden")
    assert [event.reason for event in decision.events] == ["Forbidden"]
    assert decision.effects == ()
    assert decision.status["stages"] == world.run["status"]["stages"]
    fresh = World.new()
    assert hold_forbidden(run_of(fresh), "no", NOW).status["phase"] == "Pending"
    fresh.run["metadata"]["deletionTimestamp"] = stamp(NOW)
    assert hold_forbidden(run_of(fresh), "no", NOW).status == {}
