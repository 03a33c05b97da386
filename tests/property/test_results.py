"""Results of programs that the platform does not control: whatever one contains, the status can be written and the run ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_operator.core.run import Run
from property.test_runs import validate
from world import World

SPEC: dict[str, Any] = {
    "dataset": {"uri": "/data.jsonl"}, "evaluation": {"tasks": [], "baseline": True}, "storage": {"size": "1Gi"},
    "gate": {"requirements": [{"metric": "holdout.bits_per_byte", "max": 9.0}]}, "registry": {"onExisting": "Fail"},
}  # fmt: skip
TEXTS = st.sampled_from(["", "x" * 65, "x" * 129, "x" * 300, "x" * 2000, "\x1b[2J[/x]", "\x00", "é" * 600]) | st.text(max_size=20)
NUMBERS = st.sampled_from([0, -1, 2**63 - 1, -(2**63), 10**18]) | st.integers(-5, 5)
FLOATS = st.sampled_from([0.0, -1e308, 1e308, 5e-324]) | st.floats(allow_nan=False, allow_infinity=False)
MAPS = st.dictionaries(TEXTS, TEXTS, max_size=3) | st.just({f"p{number}": "1" for number in range(250)})
METRICS = st.dictionaries(TEXTS, FLOATS, max_size=3) | st.just({f"p{number}": 1.0 for number in range(200)})
HISTORY = st.lists(st.fixed_dictionaries({"step": NUMBERS, "loss": FLOATS}), max_size=3)
FIELDS = {
    "metrics": METRICS, "history": HISTORY, "fileDigest": TEXTS, "file": TEXTS, "message": TEXTS, "reason": TEXTS,
    "warnings": st.lists(TEXTS, max_size=20), "stage": TEXTS, "attempt": TEXTS, "truncated": st.booleans(),
}  # fmt: skip


@st.composite
def altered(draw: st.DrawFn, result: dict[str, Any]) -> dict[str, Any]:
    """Return a result in which one to three values are replaced by others of their type."""
    result = {**result, "outputs": dict(result["outputs"])}
    names = sorted({*FIELDS, *(f"outputs.{name}" for name in result["outputs"])})
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)):
        section, _, inner = name.partition(".")
        if inner:
            result["outputs"][inner] = draw(_like(result["outputs"][inner]))
        else:
            result[section] = draw(FIELDS[section])
    return result


def _like(value: Any) -> st.SearchStrategy[Any]:
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, dict):
        return MAPS | METRICS
    return NUMBERS if isinstance(value, int) else TEXTS if isinstance(value, str) else st.just(value)


def life(stage: str, message: Any) -> World:
    """Return the world after a life of a run in which ``message`` returns the termination message of a stage from its usual one."""
    world = World.new(SPEC)
    for _ in range(60):
        decision = world.decide()
        world.write_status(decision.status)
        validate(world)
        for effect in decision.effects:
            world.apply_effect(effect)
        for ref in world.active():
            usual = world.success_message(ref)
            world.finish(ref, 0, message(usual) if world.stage_of(ref) == stage else usual)
        if Run.parse(world.run).ended:
            return world
    raise AssertionError("the run does not end")


STAGES = ["dataset", "model", "tokenization", "training", "baseline", "evaluation", "registry-check", "registration"]


@pytest.mark.parametrize("stage", STAGES)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_a_run_with_any_result_has_a_status_that_the_crd_accepts_and_ends(stage: str, data: st.DataObject) -> None:
    def change(usual: str) -> str:
        message = json.loads(usual)
        return json.dumps({**message, "finetune": data.draw(altered(message["finetune"]))})

    life(stage, change)


BEYOND = {
    "the name of the engine": ({"outputs": {"engine": "x" * 300}}, "status.engine.name would be invalid"),
    "many versions": ({"outputs": {"versions": {f"p{n}": "1" for n in range(250)}}}, "status.engine.versions would be invalid"),
    "a version": ({"outputs": {"versions": {"p\x1b": "x" * 3000}}}, "status.engine.versions.'p\\x1b' would be invalid"),
    "a step": ({"history": [{"step": -(2**63), "loss": 1.0}]}, "history: a step is negative"),
    "rows": ({"outputs": {"rows": -7}}, "outputs.rows: is negative"),
    "a digest": ({"fileDigest": "x" * 2000}, "status.stages.0.resultDigest would be invalid"),
}


@pytest.mark.parametrize(("changes", "text"), BEYOND.values(), ids=BEYOND)
def test_a_result_beyond_a_bound_ends_the_run_with_the_field(changes: dict[str, Any], text: str) -> None:
    def change(usual: str) -> str:
        message = json.loads(usual)
        ours = message["finetune"]
        outputs = {**ours["outputs"], **changes.get("outputs", {})}
        return json.dumps({**message, "finetune": {**ours, **changes, "outputs": outputs}})

    failure = life("training", change).run["status"]["failure"]
    assert failure["reason"] == "ContractUnknown"
    assert text in failure["message"]


def test_a_result_of_another_stage_is_no_proof() -> None:
    failure = life("training", lambda usual: usual.replace('"stage":"training"', '"stage":"evaluation"')).run["status"]["failure"]
    assert (failure["reason"], failure["message"]) == ("ProofMissing", "the result belongs to stage 'evaluation'.")
