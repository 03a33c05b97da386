"""Names, times, quantities and the words of the columns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.workspace import Attempt
from finetune_operator.api.kinds import CLUSTER_TRAINING_RUNTIME, FINETUNERUN, JOB, POD, kind_of
from finetune_operator.core import naming
from finetune_operator.core.paths import assign, leaves, lookup
from finetune_operator.core.quantities import amount, readable
from finetune_operator.core.times import duration, moment, seconds_between, short_duration, stamp

names = st.from_regex(r"\A[a-z]([-a-z0-9]{0,50}[a-z0-9])?\Z")


@given(
    names,
    st.sampled_from(["dataset", "training", "registration"]),
    st.integers(1, 99),
    st.integers(1, 99),
    st.sampled_from([33, 63]),
)
def test_child_names_fit_and_are_names(run: str, stage: str, round_: int, number: int, limit: int) -> None:
    name = naming.child_name(run, stage, Attempt(round_, number), limit)
    assert len(name) <= limit
    assert name[0].isalpha()
    assert name.replace("-", "a").isalnum()
    assert name == naming.child_name(run, stage, Attempt(round_, number), limit)


@given(names, names)
def test_two_runs_never_share_a_child_name(one: str, other: str) -> None:
    if one != other:
        first, second = (naming.child_name(run, "training", Attempt(1, 1), naming.TRAINJOB_NAME_LIMIT) for run in (one, other))
        assert first != second


def test_names_of_attempts_and_stages_differ() -> None:
    long = "a" * 52
    names_ = {
        naming.child_name(long, stage, Attempt(round_, number), 33)
        for stage in ("training", "evaluation")
        for round_ in (1, 2)
        for number in (1, 2)
    }
    assert len(names_) == 8
    assert naming.child_name("demo", "training", Attempt(1, 2)) == "demo-train-1-2"
    assert naming.inputs_name("demo", 3) == "demo-inputs-3"
    assert naming.claim_name(long)[:40] == long[:40]


def test_times_are_whole_seconds_in_utc() -> None:
    time = datetime(2026, 11, 21, 12, 0, 0, 999_999, tzinfo=UTC)
    assert stamp(time) == "2026-11-21T12:00:00Z"
    assert moment("2026-11-21T12:00:00Z") == time.replace(microsecond=0)
    assert moment("2026-11-21T13:00:00.5+01:00") == time.replace(microsecond=500_000)
    assert seconds_between("2026-11-21T12:00:00Z", "2026-11-21T12:01:30Z") == 90
    assert seconds_between(None, "2026-11-21T12:01:30Z") is None


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("250ms", 0.25), ("1.5h", 5400), ("2h0m1s", 7201)])
def test_durations_are_those_of_go(text: str, seconds: float) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "90", "1d", "h", "5m "])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; use a value such as"):
        duration(text)


@pytest.mark.parametrize(("quantity", "number"), [(4, 4), ("500m", 0.5), ("32Gi", 32 * 2**30), ("1.5k", 1500), ("2T", 2e12)])
def test_quantities_are_numbers(quantity: int | str, number: float) -> None:
    assert amount(quantity) == number


@pytest.mark.parametrize("text", ["", "1gb", "-1", "Gi"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        amount(text)


@pytest.mark.parametrize(
    ("number", "text"), [(5, "5 B"), (2048, "2.0 KiB"), (5 * 2**20, "5.0 MiB"), (2**35, "32.0 GiB"), (2**42, "4.0 TiB")]
)
def test_bytes_for_people(number: float, text: str) -> None:
    assert readable(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (60, "1m"), (95, "1m35s"), (3600, "1h"), (5430, "1h30m"), (90_000, "1d1h")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert short_duration(seconds) == text


def test_paths_into_documents() -> None:
    document: dict[str, object] = {}
    assign(document, "a.b.c", 1)
    assign(document, "a.d", [1])
    assert dict(leaves(document)) == {"a.b.c": 1, "a.d": [1]}
    assert (lookup(document, "a.b.c"), lookup(document, "a.x.c"), lookup(document, "a.d.x")) == (1, None, None)


def test_where_kinds_are_served() -> None:
    assert JOB.path("team", "demo") == "/apis/batch/v1/namespaces/team/jobs/demo"
    assert POD.path("team", "p", "log") == "/api/v1/namespaces/team/pods/p/log"
    assert FINETUNERUN.path() == "/apis/finetunerun.io/v1alpha1/finetuneruns"
    assert CLUSTER_TRAINING_RUNTIME.path("team", "x") == "/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/x"
    assert kind_of({"apiVersion": "batch/v1", "kind": "Job"}) == JOB
    assert str(JOB) == "Job"
    with pytest.raises(KeyError):
        kind_of({"apiVersion": "v1", "kind": "Node"})
