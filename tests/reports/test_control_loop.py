"""What the operator does: reports about reruns, shared objects, suspension, restarts of the API server, and crashes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from finetune_contract.crash import crash_message
from finetune_operator.api.crd import crd
from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN, POD, SERVICE_ACCOUNT
from finetune_operator.core import naming
from finetune_operator.core.decision import Create
from finetune_operator.core.observation import Ref, WarningEvent
from finetune_operator.core.plan import plan
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.shared_objects import wanted
from finetune_operator.core.times import LONGEST, stamp
from finetune_operator.loop.controller import Controller
from finetune_operator.validation import Validator
from reports.report import Report, reports
from unit.core.passes import child, condition, decide, edit, failing, fault, go, observed, run_of, stage, world_at
from world import MINIMAL, NOW, SETTINGS, World, contents_of

OWN = "own"
MORE = {"evaluation": {"tasks": [], "baseline": True, "limit": 3}}


@reports(
    Report("rerun-from-evaluation-with-a-limit", OWN, ("evaluation", MORE), 2),
    Report("rerun-from-evaluation", OWN, ("evaluation", {}), 2),
    Report("rerun-from-registration", OWN, ("registration", {}), 2),
    Report("rerun-from-registration-under-another-name", OWN, ("registration", {"registry": {"name": "other"}}), 2),
    Report("rerun-from-gate", OWN, ("gate", {}), 2),
    Report("rerun-from-training-with-more-epochs", OWN, ("training", {"training": {"epochs": 9}}), 2),
    Report("rerun-from-model", OWN, ("model", {}), 2),
    Report("rerun-from-dataset", OWN, ("dataset", {}), 2),
)
def test_a_rerun_that_a_watch_reports_starts(report: Report) -> None:
    first, change = report.given
    world = World.new()
    world.settle()
    edit(world, rerun={"id": "a", "from": first}, **change)
    errors: list[str] = []
    controller = Controller(None, None, clock=lambda: NOW, on_error=errors.append)  # type: ignore[arg-type]  # a handler calls nobody
    document = {**world.run, "metadata": {**world.run["metadata"], "resourceVersion": "7"}}
    controller.on_event(FINETUNERUN, document, "MODIFIED")
    assert (len(controller.queue), errors) == (1, [])
    world.settle()
    assert (run_of(world).status["phase"], run_of(world).round) == ("Succeeded", report.expected)


UNSUPPORTED = {"gate": {"approval": {"required": True}}}
UNSUPPORTED_VALUE = {"training": {"checkpoints": {"final": False}}}


@reports(
    Report("rerun-with-an-unsupported-field", OWN, UNSUPPORTED, ("Unsupported", "spec.gate.approval: this release does not support")),
    Report(
        "rerun-with-an-unsupported-value", OWN, UNSUPPORTED_VALUE,
        ("Unsupported", "spec.training.checkpoints.final: this release does not support false"),
    ),
    Report(
        "rerun-that-is-not-possible-here", OWN, {"training": {"gpusPerWorker": 8}},
        ("NotPossibleHere", "spec.training.gpusPerWorker: 8 is not possible here"),
    ),
)  # fmt: skip
def test_a_rerun_that_cannot_start_leaves_the_run_as_it_is(report: Report) -> None:
    world = World.new()
    world.settle()
    before = run_of(world).status
    edit(world, rerun={"id": "a", "from": "model"}, **report.given)
    status = go(world).status
    for field in ("phase", "stages", "model", "registry", "metrics", "finishedAt", "summary"):
        assert status.get(field) == before.get(field)
    assert "failure" not in status
    reason, words = report.expected
    rejected = status["conditions"][-1]
    assert (rejected["type"], rejected["reason"]) == ("RerunRejected", reason)
    assert words in rejected["message"]


@reports(
    Report("ttl-of-10-to-the-14-hours", OWN, "99999999999999h", LONGEST.total_seconds()),
    Report("ttl-of-30-digits", OWN, "999999999999999999999999999999h", LONGEST.total_seconds()),
    Report("ttl-of-30-digits-of-milliseconds", OWN, "999999999999999999999999999ms", LONGEST.total_seconds()),
)
def test_a_ttl_that_no_date_can_hold(report: Report) -> None:
    spec = {**MINIMAL, "cleanup": {"ttlAfterFinished": report.given}}
    document = {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": {"name": "demo"}, "spec": spec}
    assert [problem.field for problem in Validator(crd()).create(document)] == ["spec.cleanup.ttlAfterFinished"]
    world = World.new()
    world.settle()
    world.run["spec"] = spec  # an earlier release accepted it
    assert decide(world, NOW + timedelta(0)).requeue_after == report.expected


INPUTS, ACCOUNT = Ref(CONFIGMAP, "demo-inputs-1"), Ref(SERVICE_ACCOUNT, "finetune-stage")
BUNDLE = Ref(CONFIGMAP, naming.bundle_name(SETTINGS.bundle_digest))
LATER = NOW + timedelta(seconds=5)
MOUNTING = PodReport("p", placed=True, waiting="ContainerCreating", created_at=stamp(NOW))


@reports(
    Report(
        "account-deleted-under-a-run",
        OWN,
        (ACCOUNT, ()),
        'error looking up service account t/finetune-stage: serviceaccount "{}" not found',
    ),
    Report(
        "inputs-deleted-under-a-run",
        OWN,
        (INPUTS, (MOUNTING,)),
        'MountVolume.SetUp failed for volume "documents" : configmap "{}" not found',
    ),
    Report(
        "training-bundle-deleted-under-a-run",
        OWN,
        (BUNDLE, (MOUNTING,)),
        'MountVolume.SetUp failed for volume "training-bundle" : configmap "{}" not found',
    ),
)
def test_a_shared_object_that_is_deleted_comes_back(report: Report) -> None:
    ref, pods = report.given
    world = world_at("training", {**MINIMAL, "serviceAccountName": "finetune-stage"})
    trainjob = child(world, "training")
    made = {**world.objects[trainjob], "metadata": {**world.objects[trainjob]["metadata"], "creationTimestamp": stamp(NOW)}}
    del world.objects[ref]
    warning_event = WarningEvent("Failed", report.expected.format(ref.name), 3, 3)
    seen = observed(world, warning_events={trainjob: (warning_event,), Ref(POD, "p"): (warning_event,)})
    seen = replace(seen, objects={**seen.objects, trainjob: made}, pods={"training": pods})
    found = wanted(run_of(world), seen.objects, seen.pods, LATER)
    objects = {**seen.objects, **{one: world.objects[one] for one in found if one in world.objects}}
    seen = replace(seen, objects=objects, contents=contents_of(objects))
    decision = plan(run_of(world), seen, LATER)
    assert [effect.ref for effect in decision.effects if isinstance(effect, Create)] == [ref]
    assert condition(decision.status, "Stalled")[0] == "False", "nobody is told to create it"


@reports(
    Report(
        "inputs-of-somebody-else", OWN, (INPUTS, {"data": {"a": "b"}}),
        "ConfigMap demo-inputs-1: it exists and does not belong to this run; delete it, or use another run name",
    ),
    Report(
        "bundle-of-somebody-else", OWN, (BUNDLE, {"data": {"a": "b"}}),
        f"ConfigMap {BUNDLE.name}: its content is not what the operator wrote, or it can be changed; delete it, and the operator creates it again",
    ),
    Report(
        "account-of-somebody-else", OWN, (ACCOUNT, {}),
        "ServiceAccount finetune-stage: it is not the account of this operator; delete it, or give it the label"
        " app.kubernetes.io/managed-by: finetune-operator, no owner, and automountServiceAccountToken: false",
    ),
)  # fmt: skip
def test_an_object_of_somebody_else_is_not_mounted(report: Report) -> None:
    ref, content = report.given
    world = World.new({**MINIMAL, "serviceAccountName": "finetune-stage"})
    world.put({"apiVersion": "v1", "kind": ref.kind.name, "metadata": {"name": ref.name, "namespace": "team"}, **content})
    for _ in range(3):
        decision = go(world)
    assert not world.children()
    assert condition(decision.status, "Stalled") == ("True", "NameConflict")
    assert stage(world, "workspace").message == report.expected
    world.remove(ref)
    world.settle()
    assert run_of(world).status["phase"] == "Succeeded"


@reports(
    Report(
        "trainjob-suspended-by-hand",
        OWN,
        "training",
        "TrainJob demo-train-1-1: spec.suspend is true, and this operator did not set it",
    ),
    Report(
        "job-suspended-by-hand", OWN, "dataset", "Job demo-dataset-1-1: spec.suspend is true, and this operator did not set it"
    ),
)
def test_a_child_that_is_suspended_by_hand_is_reported(report: Report) -> None:
    world = world_at(report.given)
    ref = child(world, report.given)
    world.objects[ref] = {**world.objects[ref], "spec": {**world.objects[ref]["spec"], "suspend": True}}
    decision = go(world, pods={})
    assert condition(decision.status, "Stalled") == ("True", "ChildSuspended")
    assert stage(world, report.given).message == report.expected


REFUSED = (
    'Error creating: Post "https://10.96.0.1:443/api/v1/namespaces/t/pods": dial tcp 10.96.0.1:443: connect: connection refused'
)


@reports(
    Report("connection-refused-of-a-restart", OWN, WarningEvent("FailedCreate", REFUSED, seconds=5), ("False", "Running")),
    Report("connection-refused-for-a-minute", OWN, WarningEvent("FailedCreate", REFUSED, seconds=60, active_seconds=60), ("True", "ApiUnavailable")),
    Report(
        "webhook-without-endpoints", OWN,
        WarningEvent("FailedCreate", 'Internal error occurred: failed calling webhook "v": no endpoints available for service "w"', 60, 60),
        ("True", "ApiUnavailable"),
    ),
    Report(
        "denial-with-the-words-of-an-outage", OWN,
        WarningEvent("FailedCreate", 'Error creating: admission webhook "v" denied the request: image name "eof-registry/EOF" not allowed', 1),
        ("True", "ChildRejected"),
    ),
)  # fmt: skip
def test_a_restart_of_the_api_server_is_not_a_rejection_of_the_object(report: Report) -> None:
    world = world_at("dataset")
    status = decide(world, pods={}, warning_events={child(world, "dataset"): (report.given,)}).status
    assert condition(status, "Stalled") == report.expected


INDEX = crash_message("IndexError", "list index out of range", "datasets/arrow_dataset.py:311")


@reports(
    Report("the-same-exception-at-the-same-line", OWN, (INDEX, INDEX), ("Failed", 2)),
    Report("the-same-exception-at-another-line", OWN, (INDEX, INDEX.replace("311", "312")), ("Running", 3)),
    Report("a-segmentation-fault-twice", OWN, ("words", "words"), ("Running", 3)),
)
def test_a_crash_that_repeats_is_not_retried(report: Report) -> None:
    world = world_at("training", {**MINIMAL, "retry": {"crash": 5}})
    for message in report.given:
        go(world, **failing(world, "training", Termination(1, "Error", fault("Crashed", message))))
        for _ in range(3):
            go(world)
    assert (stage(world, "training").state, stage(world, "training").attempt) == report.expected
