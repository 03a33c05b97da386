"""The exhaustive search with the engine check, whose record outlives a round."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.core.run import Run
from finetune_operator.core.stages.engine_check import EngineCheckStage
from world import MINIMAL, World

from .test_exhaustive import Budget, explore

SPEC: dict[str, Any] = {
    "dataset": MINIMAL["dataset"], "training": {"image": f"registry.example.com/train@sha256:{'a' * 64}"}, "evaluation": {"enabled": False},
}  # fmt: skip


@pytest.fixture(autouse=True)
def asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage is not skipped, although the world of the search has no GPU."""
    monkeypatch.setattr(EngineCheckStage, "skipped", lambda _self, _run: None)


@pytest.mark.parametrize(
    "budget",
    [Budget(faults=1), Budget(failures=1), Budget(removals=1), Budget(suspensions=1), Budget(reruns=1)],
    ids=["a fault", "a failing child", "a deleted child", "a suspension", "a rerun"],
)
def test_every_history_keeps_the_invariants_and_ends(budget: Budget) -> None:
    states, broken, stuck = explore(World.new(SPEC), budget)
    print(f"{states} states")
    assert not broken, broken[:3]
    assert not stuck, stuck[:3]
    assert states > 50


def test_the_check_runs_once_and_leaves_its_record() -> None:
    world = World.new(SPEC)
    world.settle()
    assert Run.parse(world.run).stages["engine-check"].state == "Succeeded"
    assert [count for (stage, _), count in world.worked.items() if stage == "engine-check"] == [1]
    assert sum(ref.kind == CONFIGMAP and ref.name.startswith("finetune-engine-check-") for ref in world.objects) == 1
