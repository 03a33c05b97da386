"""Every history of a run, up to a budget of faults, searched breadth first on the real ``plan``.

A pass of the loop is a row of calls: the status write, then each effect. The operator holds nothing in memory, so a crash or an
error, before or after a call took effect, leaves exactly a prefix of that row done: the search tries every prefix of every pass.
Passes may come at any time (late, lost and repeated events), children end well or badly at any time, and outsiders delete
children. In every state that can be reached the invariants hold, and from every one of them the run ends once the faults stop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from finetune_operator.api.status import UNOBSERVED
from finetune_operator.core import release, stages
from finetune_operator.core.observation import ChildState, child_state
from finetune_operator.core.run import Run
from kstatus import kstatus
from world import MINIMAL, World

LONGEST = 60
"""Rounds of reconcile-and-finish after which a run that has not ended counts as stuck."""


@dataclass(frozen=True)
class Budget:
    """How much may still go wrong."""

    faults: int = 0
    failures: int = 0
    removals: int = 0
    suspensions: int = 0
    reruns: int = 0


@dataclass
class Step:
    """One transition: what happened, the world after it, and what may still go wrong."""

    what: str
    world: World
    budget: Budget


def passes(world: World, budget: Budget) -> Iterator[Step]:
    """One pass of the loop, whole or cut off after any number of its calls."""
    decision = world.decide()
    changed = decision.status != world.run.get("status", {})
    calls = ([None] if changed else []) + list(decision.effects)
    for done in range(len(calls) + 1):
        whole = done == len(calls)
        if not whole and budget.faults == 0:
            continue
        after = world.copy()
        for call in calls[:done]:
            if call is None:
                after.write_status(decision.status)
            else:
                after.apply_effect(call)
        yield Step(f"pass {done}/{len(calls)}", after, budget if whole else replace(budget, faults=budget.faults - 1))


def children_move(world: World, budget: Budget) -> Iterator[Step]:
    """A child ends well, badly, or is deleted by somebody."""
    for ref in world.active():
        after = world.copy()
        after.finish(ref)
        yield Step(f"{ref.name} succeeds", after, budget)
        if budget.failures:
            for code in (1, 75, 143):
                after = world.copy()
                after.finish(ref, exit_code=code, message="")
                yield Step(f"{ref.name} ends with {code}", after, replace(budget, failures=budget.failures - 1))
    if budget.removals:
        for ref in world.children():
            after = world.copy()
            after.remove(ref)
            yield Step(f"{ref.name} is deleted", after, replace(budget, removals=budget.removals - 1))


def user_acts(world: World, budget: Budget) -> Iterator[Step]:
    """The user suspends the run, resumes it, or runs it again."""
    spec = world.run["spec"]
    if budget.suspensions or spec.get("suspend"):
        after = world.copy()
        held = not spec.get("suspend")
        after.run = edited(world.run, {**spec, "suspend": held})
        yield Step(f"suspend: {held}", after, replace(budget, suspensions=budget.suspensions - int(held)))
    if budget.reruns and Run.parse(world.run).ended:
        for stage in ("dataset", "training", "evaluation", "gate", "registration"):
            after = world.copy()
            after.run = edited(world.run, {**spec, "rerun": {"id": f"again-{budget.reruns}", "from": stage}})
            yield Step(f"rerun from {stage}", after, replace(budget, reruns=budget.reruns - 1))


def edited(run: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """The run with another spec, as the API server stores it."""
    generation = run["metadata"]["generation"] + 1
    return {**run, "spec": spec, "metadata": {**run["metadata"], "generation": generation}}


def phases() -> tuple[str, ...]:
    """The phases in the order in which a run may have them; it ends in one of the last three."""
    begun = (phase for _, phase in reversed(stages.GRAPH.phases))
    return ("Pending", "Preparing", *begun, "Succeeded", "Failed", "Rejected")


def awaited(run: Run, name: str) -> Iterator[str]:
    """Yield the stages that must have ended before a stage starts; a skipped one is replaced by its predecessors."""
    for needed in stages.GRAPH.predecessors[name]:
        yield from awaited(run, needed) if run.stages[needed].state == "Skipped" else (needed,)
    yield from () if name == "workspace" else ("workspace",)


def violations(before: World, step: Step) -> Iterator[str]:
    """The invariants that a transition breaks."""
    world = step.world
    run, old = Run.parse(world.run), Run.parse(before.run)
    for (_, name, _), count in world.made.items():
        if count > 1 and name not in world.deleted:
            yield f"{name} was made {count} times"
    for (stage, _), count in world.worked.items():
        if count > 1:
            yield f"stage {stage} did its work {count} times"
    for ref in world.children():
        owner = world.objects[ref]["metadata"]["ownerReferences"][0]
        if owner["uid"] != run.uid:
            yield f"{ref.name} is not ours"
        if ref not in before.objects:
            stage = world.stage_of(ref)
            for earlier in {*stages.GRAPH.predecessors[stage], *stages.GRAPH.programs[stage].reads}:
                record = run.stages.get(earlier)
                if record is None or record.state not in ("Succeeded", "Skipped"):
                    yield f"{ref.name} was made before {earlier} was recorded"
    for name, record in run.stages.items():
        if record.started_at and record.round == run.round and record != old.stages.get(name):
            yield from (f"{name} started before {one} ended" for one in awaited(run, name) if not run.stages[one].ended)
    if old.ended and old.round == run.round and _outcome(run) != _outcome(old):
        yield "a run that had ended changed"
    if stages.GRAPH.model_rejection(run.stages) and run.status.get("registry"):
        yield "a rejected model was registered"
    if run.status.get("phase") == "Succeeded" and not (run.status.get("registry") and run.status.get("model", {}).get("digest")):
        yield "the run succeeded without proof"
    if run.ended and any(child_state(world.objects[ref]) is ChildState.ACTIVE for ref in world.children()) and not old.ended:
        yield "the run ended while a child was running"


def misleading(before: World, world: World) -> Iterator[str]:
    """Yield the errors in the status: kstatus's result, a phase that goes back, a reason that belongs to an end."""
    run, old = Run.parse(world.run), Run.parse(before.run)
    found = kstatus({**world.run, "status": run.status or UNOBSERVED})
    if found != _reconciled(world, run):
        yield f"kstatus says {found}"
    conditions = {entry["type"]: entry for entry in run.status.get("conditions") or ()}
    if not run.ended and any(entry["reason"] == "RunFinished" for entry in conditions.values()):
        yield "a condition of a run that has not ended has the reason RunFinished"
    if conditions and {entry["observedGeneration"] for entry in conditions.values()} != {run.status["observedGeneration"]}:
        yield "conditions and status are of different generations"
    order = phases()
    seen = [order.index(one.status["phase"]) for one in (old, run) if one.status.get("phase", "Suspended") != "Suspended"]
    if run.round == old.round and seen != sorted(seen):
        yield f"the phase went back from {old.status['phase']} to {run.status['phase']}"


def _reconciled(world: World, run: Run) -> str:
    """Return the kstatus that the run must have, from its objects and not from the conditions."""
    if run.status.get("observedGeneration") != run.generation:
        return "InProgress"
    if run.ended:
        return "Failed" if run.status.get("failure") or stages.GRAPH.model_rejection(run.stages) else "Current"
    intended = any(record.state == "Running" and record.reason != "Suspended" for record in run.stages.values())
    return "Current" if run.spec.get("suspend") and not world.active() and not intended else "InProgress"


def _outcome(run: Run) -> dict[str, Any]:
    return {key: value for key, value in run.status.items() if key not in ("conditions", "observedGeneration", "cleanedAt")}


Moves = Callable[[World, Budget], Iterator[Step]]


def no_decision(_world: World, _budget: Budget) -> Iterator[Step]:
    """No stage waits for a person."""
    yield from ()


def explore(start: World, budget: Budget, person: Moves = no_decision) -> tuple[int, list[str], list[str]]:
    """Search everything that can be reached; states, violations, stuck states (each with the way there).

    ``person`` yields what a person may do for whom a stage waits. Runs are expected to end if the first of it is done.
    """
    seen: dict[tuple[str, Budget], tuple[tuple[str, Budget] | None, str]] = {}
    queue: deque[tuple[World, Budget, tuple[str, Budget]]] = deque()

    def visit(world: World, left: Budget, came_from: tuple[str, Budget] | None, what: str) -> None:
        key = (world.key(), left)
        if key not in seen:
            seen[key] = (came_from, what)
            queue.append((world, left, key))

    def way(key: tuple[str, Budget] | None) -> str:
        parts: list[str] = []
        while key is not None:
            key, what = seen[key]
            parts.append(what)
        return " > ".join(reversed(parts))

    broken, stuck, ended, proven = [], [], set[str](), set[str]()
    visit(start, budget, None, "start")
    while queue:
        world, left, key = queue.popleft()
        for make in (passes, children_move, user_acts, person):
            for step in make(world, left):
                faults = (*violations(world, step), *misleading(world, step.world))
                broken += [f"{fault}: {way(key)} > {step.what}" for fault in faults]
                visit(step.world, step.budget, key, step.what)
        if key[0] not in ended:
            ended.add(key[0])
            if not ends(world, proven, person):
                stuck.append(way(key))
    return len(seen), broken, stuck


def ends(world: World, proven: set[str], person: Moves) -> bool:
    """Whether the run ends, and then rests, once nothing goes wrong any more and the run is not held.

    Worlds of which it is known are ``proven``; those on the way join them.
    """
    world = world.copy()
    world.run = edited(world.run, {**world.run["spec"], "suspend": False})
    way, key = list[str](), world.key()
    while key not in proven:
        if len(way) == LONGEST:
            return False
        way.append(key)
        world.turn()
        world = next((step.world for step in person(world, Budget())), world)
        before, key = key, world.key()
        if key == before and not _rests(world):
            return False
        if key == before:
            break
    proven.update(way)
    return True


def _rests(world: World) -> bool:
    decision = world.decide()
    return Run.parse(world.run).ended and decision.status == world.run["status"] and not decision.effects


CASES = {
    "faults": Budget(faults=2),
    "a fault and a failing child": Budget(faults=1, failures=1),
    "a fault and a deleted child": Budget(faults=1, removals=1),
    "two deleted children": Budget(removals=2),
    "two failing children": Budget(failures=2),
    "a suspension and a fault": Budget(suspensions=1, faults=1),
    "a rerun and a fault": Budget(reruns=1, faults=1),
}


def test_a_run_without_evaluation_keeps_the_order_too() -> None:
    spec = {**MINIMAL, "evaluation": {"enabled": False}}
    _, broken, stuck = explore(World.new(spec), Budget(faults=1, failures=1))
    assert not broken, broken[:3]
    assert not stuck, stuck[:3]


@pytest.mark.parametrize("score", [2.0, 9.0], ids=["passed", "rejected"])
def test_a_gate_is_evaluated_once_and_the_model_is_registered_only_if_it_passes(score: float) -> None:
    gate = {"requirements": [{"metric": "holdout.bits_per_byte", "maxRegression": 0.1}]}
    world = World.new({**MINIMAL, "gate": gate, "registry": {"onExisting": "Fail"}})
    world.scores = {"evaluation": score, "baseline": 2.0}
    _, broken, stuck = explore(world, Budget(faults=1, reruns=1))
    assert not broken, broken[:3]
    assert not stuck, stuck[:3]


@pytest.mark.parametrize("budget", [Budget(faults=2), Budget(faults=1, failures=1)], ids=["faults", "failure"])
def test_a_sidecar_that_never_ends_holds_no_run_and_outlives_none(budget: Budget, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "SIDECAR_SECONDS", 0.0)  # no time passes here
    _, broken, stuck = explore(World.new(MINIMAL, sidecars=True), budget)
    assert not broken, broken[:3]
    assert not stuck, stuck[:3]


@pytest.mark.parametrize("budget", CASES.values(), ids=CASES)
def test_every_history_keeps_the_invariants_and_ends(budget: Budget) -> None:
    states, broken, stuck = explore(World.new(MINIMAL), budget)
    print(f"{states} states")
    assert not broken, broken[:3]
    assert not stuck, stuck[:3]
    assert states > 50
