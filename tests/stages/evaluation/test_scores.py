"""lm-eval's results as flat metrics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finetune_stages.evaluation.scores import flat_scores, safe
from finetune_stages.sdk import StageError


def results(**metrics: object) -> dict[str, object]:
    return {
        "results": {"quiz": {"alias": "Quiz", "sample_len": 3, **metrics}},
        "higher_is_better": {"quiz": {"acc": True, "ppl": False}},
    }


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("acc,none", "quiz.acc"),
        ("acc_stderr,none", "quiz.acc_stderr"),
        ("exact_match,strict-match", "quiz.exact_match.strict-match"),
        ("exact_match_stderr,strict-match", "quiz.exact_match.strict-match_stderr"),
        ("pass@1,get answer", "quiz.pass_1.get_answer"),
        ("chrf++,none", "quiz.chrf__"),
    ],
)
def test_keys_are_safe_and_contain_the_filter(key: str, expected: str) -> None:
    assert flat_scores(results(**{key: 0.5})).metrics == {expected: 0.5}


def test_numbers_are_plain_and_the_rest_is_left_out() -> None:
    scores = flat_scores(
        results(
            **{"acc,none": np.float64(0.25), "n,none": 3, "acc_stderr,none": "N/A", "x_stderr,none": math.nan, "ppl,none": 9.0}
        )
    )
    assert scores.metrics == {"quiz.acc": 0.25, "quiz.n": 3.0, "quiz.ppl": 9.0}
    assert {type(value) for value in scores.metrics.values()} == {float}
    assert scores.higher_is_better == {"quiz.acc": True, "quiz.ppl": False}


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32("-inf")])
def test_a_score_that_is_no_number_fails(value: float) -> None:
    with pytest.raises(StageError, match=r"^quiz\.acc is -?(nan|inf): .*lower training.learningRate") as raised:
        flat_scores(results(**{"acc,none": value}))
    assert raised.value.reason.name == "ScoreNotANumber"


def test_safe_names_for_files() -> None:
    assert safe("mmlu::a/b c") == "mmlu__a_b_c"
