"""Effects that the API server rejected: reported by the next pass, retried after a pause."""

from __future__ import annotations

from datetime import timedelta

from finetune_operator.api.kinds import CONFIGMAP, JOB
from finetune_operator.core.decision import Create, Decision
from finetune_operator.core.observation import Ref, Rejection
from finetune_operator.loop.rejections import Rejections
from world import NOW

KEY = ("team", "demo")
A, B = Ref(JOB, "a"), Ref(CONFIGMAP, "b")
LATER = NOW + timedelta(seconds=10)
QUOTA, POLICY = Rejection("exceeded quota: q", forbidden=True), Rejection("a policy denies it")


def decision(*refs: Ref) -> Decision:
    return Decision({}, tuple(Create({}, ref) for ref in refs))


def refs(of: Decision) -> list[Ref]:
    return [effect.ref for effect in of.effects]


def test_a_rejected_effect_is_reported_at_once_and_retried_when_it_is_due() -> None:
    rejections, both = Rejections(), decision(A, B)
    assert refs(rejections.postpone(KEY, both, NOW)) == [A, B]
    assert rejections.observe_pass(KEY, both, both, {A: QUOTA}, LATER), "not reported yet"
    assert rejections.of_run(KEY) == {A: QUOTA}
    assert rejections.retry_at(KEY) == LATER
    carried_out = rejections.postpone(KEY, both, NOW)
    assert refs(carried_out) == [B]
    assert not rejections.observe_pass(KEY, both, carried_out, {}, LATER + timedelta(seconds=10))
    assert rejections.retry_at(KEY) == LATER, "the pause does not start again"
    assert refs(rejections.postpone(KEY, both, LATER)) == [A, B]


def test_the_same_rejection_is_reported_once_and_a_different_one_again() -> None:
    rejections, one = Rejections(), decision(A)
    rejections.observe_pass(KEY, one, one, {A: QUOTA}, NOW)
    assert not rejections.observe_pass(KEY, one, one, {A: QUOTA}, LATER)
    assert rejections.retry_at(KEY) == LATER
    assert rejections.observe_pass(KEY, one, one, {A: POLICY}, LATER)
    assert rejections.of_run(KEY) == {A: POLICY}


def test_an_effect_that_succeeds_or_is_not_needed_is_forgotten() -> None:
    rejections, both = Rejections(), decision(A, B)
    rejections.observe_pass(KEY, both, both, {A: QUOTA, B: POLICY}, NOW)
    assert not rejections.observe_pass(KEY, both, both, {B: POLICY}, LATER)
    assert rejections.of_run(KEY) == {B: POLICY}
    rejections.observe_pass(KEY, decision(), decision(), {}, LATER)
    assert (rejections.of_run(KEY), rejections.retry_at(KEY)) == ({}, None)


def test_runs_are_independent_and_can_be_forgotten() -> None:
    rejections, one = Rejections(), decision(A)
    rejections.observe_pass(KEY, one, one, {A: QUOTA}, LATER)
    assert rejections.of_run(("team", "other")) == {}
    rejections.forget(KEY)
    assert rejections.of_run(KEY) == {}
    assert refs(rejections.postpone(KEY, one, NOW)) == [A]
