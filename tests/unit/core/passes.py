"""Passes of the loop on the model world, for tables of state transitions."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from finetune_contract.result import Result, termination_message
from finetune_operator.core.decision import Decision
from finetune_operator.core.observation import Observed, Ref, child_ref
from finetune_operator.core.plan import plan
from finetune_operator.core.pod_report import PodReport, Termination
from finetune_operator.core.reads import active_stages, needs
from finetune_operator.core.run import Run
from world import NOW, SETTINGS, World, contents_of


def run_of(world: World) -> Run:
    """The run as ``plan`` reads it."""
    return Run.parse(world.run)


def observed(world: World, **changes: Any) -> Observed:
    """What is seen of the world, with changes."""
    run = run_of(world)
    found = {ref: world.objects[ref] for ref in needs(run, SETTINGS) if ref in world.objects}
    pods = {
        record.name: world.pods_of(record.child_kind, record.child_name, record.name)
        for record in run.stages.values()
        if record in active_stages(run)
    }
    seen = Observed(SETTINGS, found, {name: report for name, report in pods.items() if report})
    given = changes.pop("contents", {})
    seen = replace(seen, **changes)
    return replace(seen, contents=contents_of(seen.objects) | given)


def decide(world: World, now: datetime = NOW, **changes: Any) -> Decision:
    """One decision."""
    return plan(run_of(world), observed(world, **changes), now)


def go(world: World, now: datetime = NOW, **changes: Any) -> Decision:
    """One whole pass of the loop."""
    decision = decide(world, now, **changes)
    world.write_status(decision.status)
    for effect in decision.effects:
        world.apply_effect(effect)
    return decision


def world_at(stage: str, spec: dict[str, Any] | None = None) -> World:
    """A run whose ``stage`` has a child that runs, and is known by its uid."""
    world = World.new(spec)
    for _ in range(12):
        go(world)
        record = run_of(world).stages[stage]
        if record.state == "Running" and record.child_uid:
            return world
        for ref in world.active():
            if world.stage_of(ref) != stage:
                world.finish(ref)
    raise AssertionError(f"stage {stage} never ran: {run_of(world).stages}")


def child(world: World, stage: str) -> Ref:
    """The child of a stage."""
    return child_ref(run_of(world).stages[stage])


def stage(world: World, name: str) -> Any:
    """The record of a stage."""
    return run_of(world).stages[name]


def condition(status: Any, type_: str) -> tuple[str, str]:
    """Status and reason of a condition."""
    found = {entry["type"]: (entry["status"], entry["reason"]) for entry in status["conditions"]}
    return found[type_]


def failing(world: World, name: str, termination: Termination | None = None, **report: Any) -> dict[str, Any]:
    """An observation in which the pod of a stage has failed."""
    pod = PodReport(f"{child(world, name).name}-0", phase="Failed", termination=termination, **report)
    return {"pods": {**observed(world).pods, name: (pod,)}}


def edit(world: World, **spec: Any) -> None:
    """The user edits the run."""
    metadata = {**world.run["metadata"], "generation": world.run["metadata"]["generation"] + 1}
    world.run = {**world.run, "metadata": metadata, "spec": {**world.run["spec"], **spec}}


def fault(reason: str, message: str = "words") -> str:
    """The termination message of a program that failed."""
    return termination_message(Result("dataset", "1.1", "", "Failed", reason, message))
