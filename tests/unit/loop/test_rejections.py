"""Rejected effects: when they are carried out again, and what they do not hold up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from finetune_operator.api.kinds import JOB
from finetune_operator.core.decision import Create, Decision, Delete, Effect, Patch
from finetune_operator.core.observation import Ref, Rejection
from finetune_operator.loop.rejections import Rejections
from world import NOW

KEY = ("team", "demo")
REF, OTHER = Ref(JOB, "demo-dataset"), Ref(JOB, "demo-model")
PATCH, CREATE, DELETE = Patch(REF, {}), Create({}, OTHER), Delete(REF, "uid")
LATER = NOW + timedelta(seconds=10)


def after(*rejected: Effect) -> Rejections:
    """The cache after a pass in which the API server rejected these effects."""
    rejections = Rejections()
    decision = Decision({}, (PATCH, CREATE))
    reasons = {effect.ref: Rejection("denied") for effect in rejected}
    assert rejections.observe_pass(KEY, decision, decision, reasons, LATER) == bool(rejected)
    return rejections


def test_a_rejected_effect_waits_for_its_retry_and_the_others_do_not() -> None:
    rejections = after(PATCH)
    assert rejections.postpone(KEY, Decision({}, (PATCH, CREATE)), NOW).effects == (CREATE,)
    assert rejections.postpone(KEY, Decision({}, (PATCH, CREATE)), LATER).effects == (PATCH, CREATE)
    assert rejections.retry_at(KEY) == LATER


def test_another_effect_on_the_same_object_does_not_wait() -> None:
    assert after(PATCH).postpone(KEY, Decision({}, (DELETE,)), NOW).effects == (DELETE,)


def test_a_rejection_is_kept_until_the_effect_succeeds_or_is_not_needed() -> None:
    rejections, decision = after(PATCH), Decision({}, (PATCH,))
    postponed = replace(decision, effects=())
    assert not rejections.observe_pass(KEY, decision, postponed, {}, LATER)
    assert rejections.of_run(KEY) == {REF: Rejection("denied")}
    assert not rejections.observe_pass(KEY, decision, decision, {}, LATER)
    assert rejections.of_run(KEY) == {}
    assert after().retry_at(KEY) is None
