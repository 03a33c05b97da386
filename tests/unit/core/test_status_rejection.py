"""The failure of a run whose next status the API server rejects."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.core.run import Run
from finetune_operator.core.status_rejection import fail_rejected
from world import World


def test_the_last_status_is_kept_and_the_message_is_short_and_without_credentials() -> None:
    world = World.new()
    world.turn()
    decision = fail_rejected(Run.parse(world.run), "https://user:hunter22@host " + "x" * 5000)
    assert decision is not None
    failure = decision.status["failure"]
    assert {key: value for key, value in decision.status.items() if key != "failure"} == world.run["status"]
    assert failure["reason"] == "StatusRejected"
    assert failure["message"].startswith("status: the API server rejected the next status: https://***@host")
    assert len(failure["message"]) == 1024


@pytest.mark.parametrize(
    ("metadata", "status"),
    [
        ({}, {}), ({}, {"startedAt": "2026-11-21T12:00:00Z", "failure": {"reason": "Crashed"}}),
        ({"deletionTimestamp": "2026-11-21T12:00:00Z"}, {"startedAt": "2026-11-21T12:00:00Z"}),
        ({}, {"startedAt": "2026-11-21T12:00:00Z", "finishedAt": "2026-11-21T12:00:00Z"}),
    ],
    ids=["not started", "fails", "deleted", "ended"],
)  # fmt: skip
def test_other_runs_do_not_fail(metadata: dict[str, Any], status: dict[str, Any]) -> None:
    run = World.new().run
    assert fail_rejected(Run.parse({**run, "metadata": {**run["metadata"], **metadata}, "status": status}), "no") is None
