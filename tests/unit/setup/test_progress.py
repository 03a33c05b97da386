"""What a set-up shows: which step of how many, and how long it took before."""

from __future__ import annotations

from pathlib import Path

import pytest

import progress


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "finetune-operator"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that each step takes, in turn."""
    seconds: list[float] = []
    now = [0.0]

    def monotonic() -> float:
        began = now[0]
        if seconds:
            now[0] += seconds.pop(0)
        return began

    monkeypatch.setattr(progress.time, "monotonic", monotonic)
    return seconds


def test_steps_are_numbered_and_show_their_duration(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    clock[:] = [250.0, 0.0, 1.0, 0.0]
    with progress.counted(2):
        for name in ("kube-apiserver", "kubectl"):
            with progress.step(f"building {name} v1.34.4", name):
                pass
    assert capsys.readouterr().err.splitlines() == [
        "[1/2] building kube-apiserver v1.34.4",
        "[1/2] building kube-apiserver v1.34.4: done in 250 s",
        "[2/2] building kubectl v1.34.4",
        "[2/2] building kubectl v1.34.4: done in 1 s",
    ]
    assert progress.durations() == {"kube-apiserver": 250.0, "kubectl": 1.0}
    assert progress.estimate(["kube-apiserver", "kubectl", "etcd"]) == 251.0
    for name in ("kube-apiserver", "kubectl"):
        with progress.step(f"building {name} v1.35.0", name):
            pass
    assert [line for line in capsys.readouterr().err.splitlines() if "done" not in line] == [
        "building kube-apiserver v1.35.0 (took 250 s last time)",
        "building kubectl v1.35.0",
    ]


def test_a_step_that_fails_leaves_no_duration(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no"), progress.step("building etcd", "etcd"):
        raise ValueError("no")
    assert capsys.readouterr().err == "building etcd\n"
    assert progress.durations() == {}


@pytest.mark.parametrize("text", ["", "[1]", '{"etcd": "long"}', "null"])
def test_a_damaged_record_costs_a_hint_and_no_build(text: str, cache: Path) -> None:
    cache.mkdir()
    (cache / "durations.json").write_text(text)
    with progress.step("building etcd", "etcd"):
        pass
    assert list(progress.durations()) == ["etcd"]
    assert [path.name for path in cache.iterdir()] == ["durations.json"]


def test_a_cache_that_cannot_be_written_stops_nothing(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.touch()  # a file where the folder should be
    with progress.step("building etcd", "etcd"):
        pass
    assert "done in" in capsys.readouterr().err
