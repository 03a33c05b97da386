"""How long the status of a run has been rejected."""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.loop.errors import Invalid
from finetune_operator.loop.status_rejections import GRACE, StatusRejections
from world import NOW

KEY = ("team", "demo")
ENGINE, PHASE = (Invalid(f"status.{name}: no", 422, causes=((f"status.{name}", "no"),)) for name in ("engine", "phase"))


def test_a_rejection_persists_if_the_fields_are_the_same_for_minutes() -> None:
    rejections = StatusRejections()
    assert not rejections.persists(KEY, ENGINE, NOW)
    assert not rejections.persists(KEY, ENGINE, NOW + GRACE - timedelta(seconds=1))
    assert rejections.persists(KEY, ENGINE, NOW + GRACE)
    assert not rejections.persists(("team", "other"), ENGINE, NOW + GRACE)


def test_other_fields_and_a_success_restart_the_time() -> None:
    rejections = StatusRejections()
    assert not rejections.persists(KEY, ENGINE, NOW)
    assert not rejections.persists(KEY, PHASE, NOW + GRACE)
    assert rejections.persists(KEY, PHASE, NOW + 2 * GRACE)
    rejections.forget(KEY)
    assert not rejections.persists(KEY, PHASE, NOW + 2 * GRACE)
