"""The runner of all checks and tests: each runs, and the worst decides."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import checks
from checks import Result, Runner

GOOD = "def test_one():\n    pass\n"
BAD = "import pytest\n\ndef test_one():\n    assert 1 == 2\n\ndef test_two():\n    pass\n\n@pytest.mark.skip\ndef test_three():\n    pass\n"


def python(program: str, name: str = "a") -> Runner:
    return Runner(name, (sys.executable, "-c", program))


def suite(folder: Path, name: str, text: str) -> Runner:
    (folder / f"test_{name}.py").write_text(text)
    words = (
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        "--rootdir",
        str(folder),
        str(folder / f"test_{name}.py"),
    )
    return Runner(name, (sys.executable, *words), counts=True)


def test_a_runner_that_fails_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = [
        suite(tmp_path, "unit", BAD), python("raise SystemExit(2)", "types"), suite(tmp_path, "other", GOOD), python("", "style"),
    ]  # fmt: skip
    monkeypatch.setattr(checks, "runners", lambda _which, _jobs: chosen)
    assert checks.main(["test"]) == 2
    printed = capfd.readouterr().out
    assert "1 failed, 1 passed, 1 skipped in" in printed, "pytest's own line stays"
    assert "1 passed in" in printed
    rows = {line.split()[0]: line.split()[1:-2] for line in printed.splitlines() if line.endswith(" s")}
    assert rows["unit"] == ["exit", "code", "1", "1", "1", "1"]
    assert rows["types"] == ["exit", "code", "2"]
    assert rows["other"] == ["passed", "1", "0", "0"]
    assert rows["style"] == ["passed"]
    assert printed.splitlines()[-1] == "failed: unit; types"


@pytest.mark.parametrize(
    ("program", "code"),
    [("", 0), ("raise SystemExit(5)", 5), ("import os; os.kill(os.getpid(), 9)", 137)],
    ids=["passes", "fails", "killed"],
)
def test_how_a_runner_ended_is_its_exit_code(program: str, code: int) -> None:
    assert checks.run(python(program)).code == code


def test_a_program_that_is_not_there_is_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    assert checks.run(Runner("types", ("/nonexistent/mypy",))).code == 127
    assert "types: [Errno 2] No such file or directory" in capfd.readouterr().err


def test_a_suite_that_ends_before_it_counts_is_a_failure_with_nothing_passed(tmp_path: Path) -> None:
    result = checks.run(suite(tmp_path, "dies", "import os\nos._exit(3)\n"))
    assert (result.code, result.counts) == (3, {})
    assert "exit code 3       0" in checks.table([result])


def test_the_interrupted_suite_ends_at_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    assert checks.main(["check"]) == checks.INTERRUPTED
    assert capfd.readouterr().out.splitlines()[-1] == "failed: style"


def test_everything_that_passed_is_one_line() -> None:
    assert checks.table([Result("unit", 0, 61.4, {"passed": 3})]).splitlines() == [
        "runner  result  passed  failed  skipped  time",
        "unit    passed       3       0        0  61 s",
        "",
        "everything passed",
    ]


def test_every_folder_of_tests_has_a_runner() -> None:
    root = Path(__file__).parents[3]
    folders = {path.parent.relative_to(root / "tests").parts[0] for path in (root / "tests").glob("*/**/test_*.py")}
    words = {word for runner in checks.runners("test", 2) for word in runner.command}
    assert {f"tests/{folder}" for folder in folders} - words == set()
