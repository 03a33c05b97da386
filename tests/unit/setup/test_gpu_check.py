"""The GPU script: what it does with its time, with failures, and with differences. The cases themselves run with ``--tiny``."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from finetune_contract.documents import OsftInputs
from finetune_contract.result import LossPoint, Result
from gpu import check
from gpu.cases import LARGE, TINY, Case, figures, largest_difference, trained
from gpu.report import CaseError, Figures, Report


def passing(_seconds: float) -> Figures:
    return {"loss": "2.000 to 1.000", "tokensPerSecond": 1234.5, "peakBytes": 3 << 30, "estimatedBytes": 2 << 30}


def failing(_seconds: float) -> Figures:
    raise CaseError("the loss did not fall")


def crashing(_seconds: float) -> Figures:
    raise KeyError("x")


def late(_seconds: float) -> Figures:
    raise TimeoutError("did not end within 9 s")


def statuses(report: Report) -> dict[str, str]:
    return {case["name"]: case["status"] for case in report.cases}


def test_a_case_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    report = Report(tmp_path / "report.json", False, 100)
    for name, run in {"a": failing, "b": crashing, "c": late, "d": passing}.items():
        report.run(Case(name, 10, run))
        assert len(json.loads(report.path.read_text())["cases"]) == len(report.cases), "written after each case"
    assert statuses(report) == {"a": "failed", "b": "failed", "c": "timed out", "d": "passed"}
    assert report.failed
    assert report.table()[-1].split("|")[1:8] == [
        " d    ", " passed    ", " 0.0     ", " 2.000 to 1.000 ", " 1,234    ", " 3.0 GiB     ", " 2.0 GiB  ",
    ]  # fmt: skip


def test_cases_beyond_the_time_are_not_run(tmp_path: Path) -> None:
    given: list[float] = []
    report = Report(tmp_path / "report.json", False, 30)
    report.run(Case("a", 100, lambda seconds: given.append(seconds) or {}))
    assert 29 < given[0] <= 30
    report._started = time.monotonic() - 20
    report.run(Case("b", 100, passing))
    assert report.cases[-1] == {"name": "b", "status": "not run", "note": "no time is left"}
    report._started = time.monotonic() - 5
    report.run(Case("c", 100, passing))
    assert statuses(report) == {"a": "passed", "b": "not run", "c": "passed"}
    assert not report.failed


def test_nothing_runs_after_a_required_case_failed(tmp_path: Path) -> None:
    report = Report(tmp_path / "report.json", True, 100)
    report.run(Case("check", 10, failing, required=True))
    report.run(Case("a", 10, passing))
    assert report.cases[-1] == {"name": "a", "status": "not run", "note": "check: failed"}
    assert json.loads(report.path.read_text())["stopped"] == "check: failed"


def test_loss_curves_are_compared_step_by_step() -> None:
    first = (LossPoint(1, 2.0), LossPoint(2, 1.0))
    assert largest_difference(first, (LossPoint(1, 2.0), LossPoint(2, 0.8))) == pytest.approx(0.25)
    with pytest.raises(CaseError, match="2 and 1 steps"):
        largest_difference(first, first[:1])


def test_an_engine_that_does_not_measure_its_memory_has_figures_too() -> None:
    history = (LossPoint(1, 2.0), LossPoint(2, 1.0))
    measured = {"tokens_per_second": 5.0, "train_seconds": 2.0, "steps": 2}
    found = figures(Result("training", "1.1", "", "Succeeded", metrics=measured, history=history), 7)
    assert found == {"loss": "2.000 to 1.000", "tokensPerSecond": 5.0, "trainSeconds": 2.0, "steps": 2}
    found = figures(Result("training", "1.1", "", "Succeeded", metrics=measured | {"peak_memory_bytes": 9}, history=history), 7)
    assert (found["peakBytes"], found["estimatedBytes"]) == (9, 7)
    with pytest.raises(CaseError, match="the loss did not fall"):
        figures(Result("training", "1.1", "", "Succeeded", metrics=measured, history=history[1:]), 7)


def test_trainings_have_the_values_that_their_engine_accepts() -> None:
    assert trained(TINY, "training-hub", "osft").osft == OsftInputs(0.25, (), "all")
    assert trained(TINY, "portable", "osft").osft == OsftInputs(0.25, (), "targets")
    assert trained(LARGE, "training-hub", "sft").engine == "training-hub"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "/nonexistent/x.json"], "--output: /nonexistent is not a directory"),
        (["--work", "/nonexistent"], "--work: /nonexistent is not a directory"),
        (["--seconds", "0"], "'0' is not a number above 0"),
        (["--seconds", "x"], "'x' is not a number above 0"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        check.main(["--tiny", *arguments])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
