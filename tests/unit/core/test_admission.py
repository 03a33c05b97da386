"""A run on its way through the gate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_contract.documents import GATE_VARIABLE, KEEP_METRICS_VARIABLE
from finetune_operator.api.kinds import JOB
from finetune_operator.core.observation import Observed, Ref
from finetune_operator.core.plan import plan
from finetune_operator.core.run import Run
from world import MINIMAL, NOW, SETTINGS, World

NO_WORSE = {"metric": "holdout.bits_per_byte", "maxRegression": 0.1}


def gated(*requirements: dict[str, Any], **gate: Any) -> World:
    spec = {**MINIMAL, "evaluation": {"tasks": []}, "gate": {"requirements": list(requirements or (NO_WORSE,)), **gate}}
    return World.new(spec)


def status_of(world: World) -> dict[str, Any]:
    status: dict[str, Any] = world.run["status"]
    return status


def condition(world: World, type_: str) -> tuple[str, str]:
    found = {entry["type"]: (entry["status"], entry["reason"]) for entry in status_of(world)["conditions"]}
    return found[type_]


def states(world: World) -> dict[str, str]:
    return {entry["name"]: entry["state"] for entry in status_of(world)["stages"]}


def environment_of(world: World, name: str) -> dict[str, str]:
    template = world.objects[Ref(JOB, name)]["spec"]["template"]
    return {entry["name"]: entry.get("value", "") for entry in template["spec"]["containers"][0]["env"]}


def test_a_good_model_passes_and_is_registered() -> None:
    world = gated()
    world.settle()
    status = status_of(world)
    assert status["phase"] == "Succeeded"
    assert condition(world, "GatePassed") == ("True", "GatePassed")
    assert states(world)["registration"] == "Succeeded"
    assert status["gate"]["passed"]
    assert status["gate"]["requirements"][0]["margin"] == pytest.approx(0.1)
    assert environment_of(world, "demo-register-1-1")[GATE_VARIABLE] == "Passed"


def test_the_gate_has_the_base_model_measured() -> None:
    world = gated()
    world.settle()
    assert states(world)["baseline"] == "Succeeded"
    world = gated({"metric": "holdout.bits_per_byte", "max": 3.0})
    world.settle()
    assert states(world)["baseline"] == "Skipped"


def test_its_metrics_outlast_every_trimming() -> None:
    world = gated()
    world.settle()
    assert environment_of(world, "demo-eval-1-1")[KEEP_METRICS_VARIABLE] == "holdout.bits_per_byte"
    assert environment_of(world, "demo-baseline-1-1")[KEEP_METRICS_VARIABLE] == "holdout.bits_per_byte"


def rejected(**gate: Any) -> World:
    world = gated(**gate)
    world.scores = {"evaluation": 2.5, "baseline": 2.0}
    world.settle()
    return world


def test_a_worse_model_is_rejected_kept_and_not_registered() -> None:
    world = rejected()
    status = status_of(world)
    assert status["phase"] == "Rejected"
    assert "failure" not in status
    assert status["model"]["uri"]
    assert "registry" not in status
    assert states(world)["registration"] == "Skipped"
    for type_, value in (("Succeeded", "False"), ("GatePassed", "False"), ("Stalled", "True")):
        assert condition(world, type_) == (value, "GateRejected")
    assert status["summary"]["message"].startswith("GateRejected: holdout.bits_per_byte is 2.5, at most 0.1 worse than")


def test_a_rejection_is_reported_once() -> None:
    world = gated()
    world.scores = {"evaluation": 2.5, "baseline": 2.0}
    told = []
    for _ in range(30):
        decision = world.decide()
        told += decision.events
        world.write_status(decision.status)
        for effect in decision.effects:
            world.apply_effect(effect)
        for ref in list(world.objects):
            world.finish(ref)
    assert [(event.type, event.reason) for event in told][-2:] == [("Warning", "GateRejected"), ("Warning", "GateRejected")]
    assert sum(event.message.startswith("gate: ") for event in told) == 1


def test_a_rejected_model_can_be_registered_as_such() -> None:
    world = rejected(onRejected="RegisterAsRejected")
    assert status_of(world)["phase"] == "Rejected"
    assert states(world)["registration"] == "Succeeded"
    assert environment_of(world, "demo-register-1-1")[GATE_VARIABLE] == "Rejected"
    assert condition(world, "Registered") == ("True", "Succeeded")


def test_without_a_registry_there_is_nothing_to_leave_out() -> None:
    world = gated()
    world.scores = {"evaluation": 2.5, "baseline": 2.0}
    place = replace(SETTINGS, local_registry=False)
    for _ in range(30):
        decision = world.decide(settings=place)
        world.write_status(decision.status)
        for effect in decision.effects:
            world.apply_effect(effect)
        for ref in list(world.objects):
            world.finish(ref)
    stages = {entry["name"]: entry for entry in status_of(world)["stages"]}
    assert stages["registration"]["reason"] == "RegistryNotConfigured"
    assert status_of(world)["phase"] == "Rejected"


def test_a_metric_that_was_not_measured_fails_the_run() -> None:
    world = gated({"metric": "holdout.words", "min": 1.0})
    world.settle()
    failure = status_of(world)["failure"]
    assert (failure["stage"], failure["reason"]) == ("gate", "MetricMissing")
    assert "holdout.bits_per_byte" in failure["message"]
    assert states(world)["registration"] == "Skipped"


def test_a_suspended_run_waits_at_the_gate() -> None:
    world = gated()
    while "gate" not in world.run.get("status", {}):
        decision = world.decide()
        if decision.status.get("gate"):
            break
        world.write_status(decision.status)
        for effect in decision.effects:
            world.apply_effect(effect)
        for ref in list(world.objects):
            world.finish(ref)
    world.run["spec"]["suspend"] = True
    decision = plan(Run.parse(world.run), Observed(SETTINGS), NOW)
    assert "gate" not in decision.status
    assert decision.status["phase"] == "Suspended"


def test_a_softer_gate_lets_the_same_model_through_without_training_again() -> None:
    world = rejected()
    world.run["spec"]["gate"] = {"requirements": [{**NO_WORSE, "maxRegression": 1.0}]}
    world.run["spec"]["rerun"] = {"id": "softer", "from": "gate"}
    world.run["metadata"]["generation"] += 1
    world.settle()
    status = status_of(world)
    assert (status["phase"], status["round"]) == ("Succeeded", 2)
    assert {name for name, state in states(world).items() if state == "Succeeded"} >= {"gate", "registration", "training"}
    assert max(world.worked.values()) == 1, "nothing was done twice"


def test_a_new_round_does_not_show_what_the_last_one_registered() -> None:
    world = gated()
    world.settle()
    assert status_of(world)["registry"]
    world.scores = {"evaluation": 2.5, "baseline": 2.0}
    world.results.clear()
    world.run["spec"]["rerun"] = {"id": "worse", "from": "evaluation"}
    world.run["metadata"]["generation"] += 1
    world.settle()
    status = status_of(world)
    assert (status["phase"], "registry" in status) == ("Rejected", False)
    assert status["metrics"]["evaluation"] == {"holdout.bits_per_byte": 2.5}


def test_the_verdict_stays_when_only_the_registration_is_done_again() -> None:
    world = gated()
    world.settle()
    before = status_of(world)["gate"]
    world.run["spec"]["rerun"] = {"id": "again", "from": "registration"}
    world.run["metadata"]["generation"] += 1
    world.settle()
    assert (status_of(world)["gate"], status_of(world)["round"]) == (before, 2)


def test_a_version_that_may_not_exist_is_asked_for_before_training() -> None:
    spec = {**MINIMAL, "registry": {"onExisting": "Fail"}}
    world = World.new(spec)
    for _ in range(3):
        decision = world.decide()
        world.write_status(decision.status)
        for effect in decision.effects:
            world.apply_effect(effect)
    assert Ref(JOB, "demo-registry-check-1-1") in world.objects
    world.settle()
    assert status_of(world)["phase"] == "Succeeded"
    assert states(world)["registry-check"] == "Succeeded"
