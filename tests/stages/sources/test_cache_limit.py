"""The size of the caches is limited: what was unused for the longest time is removed, and what is in use is kept."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from finetune_contract.codec import encode
from finetune_contract.documents import DatasetInputs, RunInfo, StageDocument
from finetune_contract.workspace import SENTINEL, Attempt
from finetune_stages.sdk import Context, seal_directory, verify_seal
from finetune_stages.sources import cache, cache_limit
from finetune_stages.sources.background import folder_size
from finetune_stages.sources.cache import store_entry, verified_entry
from finetune_stages.sources.cache_limit import KEPT_SECONDS, limit_caches, mark_used
from stages.conftest import StagePrograms

MEGABYTE = 10**6


@pytest.fixture
def context(tmp_path: Path) -> Context:
    document = StageDocument(2, "model", RunInfo("demo", "team-a", "0123456789abcdef"), encode(DatasetInputs("x")))
    return Context(document, tmp_path, Attempt(1, 1), "0" * 64)


def entry(context: Context, name: str, megabytes: int, hours: float) -> Path:
    """An entry that was used some hours ago."""
    path = context.path(f"cache/{name}")
    path.mkdir(parents=True)
    (path / "file").write_bytes(bytes(megabytes * MEGABYTE))
    seal_directory(path, {"source": f"org/{path.name}"})
    used = time.time() - hours * 3600
    os.utime(path / SENTINEL, (used, used))
    return path


def left(context: Context) -> set[str]:
    return {str(path.relative_to(context.path("cache"))) for path in context.path("cache").glob("*/*")}


def test_without_a_limit_nothing_is_removed(context: Context) -> None:
    entry(context, "models/a", 3, hours=99)
    assert limit_caches(context) == ()
    assert left(context) == {"models/a"}


def test_the_longest_unused_entries_are_removed_and_named(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, hours in (("models/a", 5), ("datasets/b", 9), ("models/c", 7), ("datasets/d", 2)):
        entry(context, name, 2, hours)
    monkeypatch.setenv("FINETUNE_CACHE_LIMIT", str(5 * MEGABYTE))
    assert limit_caches(context) == (
        "cleanup.cacheSize: 2 unused entries of the caches with 4 MB were removed (data org/b, model org/c).",
    )
    assert left(context) == {"models/a", "datasets/d"}
    assert limit_caches(context) == ()


def test_a_use_is_recorded(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = entry(context, "models/a", 2, hours=9), entry(context, "models/b", 2, hours=5)
    assert verified_entry(context, first) is not None
    monkeypatch.setenv("FINETUNE_CACHE_LIMIT", str(3 * MEGABYTE))
    (sentence,) = limit_caches(context)
    assert sentence == "cleanup.cacheSize: 1 unused entry of the caches with 2 MB was removed (model org/b)."
    assert (first.exists(), second.exists()) == (True, False)


@pytest.mark.parametrize("interval", [0, 3600])
def test_an_entry_is_in_use_until_the_end_of_a_long_verification(
    interval: int, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "MARK_SECONDS", interval)
    path = entry(context, "models/a", 9, hours=9)
    ages = []

    def hours_pass(_: bytes) -> None:
        ages.append(time.time() - (path / SENTINEL).stat().st_mtime)
        os.utime(path / SENTINEL, (1, 1))

    assert verified_entry(context, path, lambda _: hours_pass) is not None
    assert len(ages) > 1
    assert (max(ages) < KEPT_SECONDS) is (interval == 0), "marked while it is read, once for each interval"
    assert time.time() - (path / SENTINEL).stat().st_mtime < KEPT_SECONDS


def interleave(monkeypatch: pytest.MonkeyPatch, first: Callable[[Path], object]) -> None:
    """Let another stage do something after this one has listed the entries, and before it removes the first one."""
    remove, waiting = cache_limit._remove, [first]

    def wrapped(path: Path) -> str:
        if waiting:
            waiting.pop()(path)
        return remove(path)

    monkeypatch.setattr(cache_limit, "_remove", wrapped)


def test_two_stages_remove_no_more_than_one(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, hours in (("models/a", 9), ("models/b", 8), ("models/c", 7), ("models/d", 6)):
        entry(context, name, 2, hours)
    monkeypatch.setenv("FINETUNE_CACHE_LIMIT", str(5 * MEGABYTE))
    sentences: list[str] = []
    interleave(monkeypatch, lambda _: sentences.extend(limit_caches(context)))
    assert limit_caches(context) == ()
    assert sentences == [
        "cleanup.cacheSize: 2 unused entries of the caches with 4 MB were removed (model org/a, model org/b).",
    ]
    assert left(context) == {"models/c", "models/d"}


def test_an_entry_that_a_stage_begins_to_use_is_kept(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = entry(context, "models/a", 2, hours=9), entry(context, "models/b", 2, hours=8)
    monkeypatch.setenv("FINETUNE_CACHE_LIMIT", str(3 * MEGABYTE))
    interleave(monkeypatch, mark_used)
    (sentence,) = limit_caches(context)
    assert sentence == "cleanup.cacheSize: 1 unused entry of the caches with 2 MB was removed (model org/b)."
    assert verify_seal(first) is not None
    assert not second.exists()


def test_what_could_not_be_deleted_does_not_end_the_limit(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    path = entry(context, "models/a", 2, hours=9)
    monkeypatch.setenv("FINETUNE_CACHE_LIMIT", "0")

    def leave(_: Path) -> None:
        (path.parent / ".removed-a").mkdir()
        (path.parent / ".removed-a/file").touch()

    interleave(monkeypatch, leave)
    (sentence,) = limit_caches(context)
    assert sentence == "cleanup.cacheSize: 1 unused entry of the caches with 2 MB was removed (model org/a)."


def test_the_holes_of_a_file_are_not_counted(tmp_path: Path) -> None:
    with (tmp_path / "part").open("wb") as file:
        file.write(b"x" * MEGABYTE)
        file.truncate(99 * MEGABYTE)
    (tmp_path / "small").write_bytes(b"abc")
    assert MEGABYTE <= folder_size(tmp_path) < 2 * MEGABYTE
    (tmp_path / "part").unlink()
    assert folder_size(tmp_path) == 3


def test_entries_in_use_are_kept(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    linked, recent = entry(context, "models/linked", 2, hours=99), entry(context, "models/recent", 2, KEPT_SECONDS / 3600 - 0.1)
    shared = entry(context, "datasets/shared", 2, hours=99)
    run = context.path("runs/other-01234567")
    run.mkdir(parents=True)
    (run / "base_model").symlink_to(linked)
    os.link(shared / "file", run / "train.jsonl")
    monkeypatch.setenv("FINETUNE_CACHE_LIMIT", "0")
    (sentence,) = limit_caches(context)
    assert sentence == (
        "cleanup.cacheSize: the caches have 4 MB, more than 0 MB, because runs use them; raise it, or delete the directories of runs that"
        " are no longer needed."
    )
    assert {linked, recent} <= set(context.path("cache/models").iterdir())
    (run / "base_model").unlink()
    (run / "train.jsonl").unlink()
    removed, _ = limit_caches(context)
    assert removed.startswith("cleanup.cacheSize: 2 unused entries of the caches with 4 MB were removed (")
    assert left(context) == {"models/recent"}


def test_what_a_killed_attempt_left_is_removed(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    entry(context, "models/a", 1, hours=0)
    context.path("cache/models/.removed-x").mkdir()
    monkeypatch.setenv("FINETUNE_CACHE_LIMIT", str(MEGABYTE * 9))
    assert limit_caches(context) == ()
    assert left(context) == {"models/a"}


def test_a_removed_entry_is_stored_again(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    old = entry(context, "models/a", 1, hours=9)
    monkeypatch.setenv("FINETUNE_CACHE_LIMIT", "0")
    limit_caches(context)
    assert verified_entry(context, old) is None
    store_entry(entry(context, "other/a", 1, hours=0), old)
    assert verify_seal(old) is not None


def test_the_stage_limits_the_caches_and_reports_it(run_stage_program: StagePrograms, tmp_path: Path) -> None:
    row = '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
    (tmp_path / "rows.jsonl").write_text(row)
    old = run_stage_program.path("cache/models/old")
    old.mkdir(parents=True)
    (old / "file").write_bytes(bytes(MEGABYTE))
    os.utime(old, (1, 1))
    limit = {"FINETUNE_CACHE_LIMIT": "1000"}
    inputs = DatasetInputs(str(tmp_path / "rows.jsonl"), train_split=1.0)
    first = run_stage_program("dataset", inputs, environment=limit)
    assert first.code == 0, first.errors
    assert first.result.warnings == ("cleanup.cacheSize: 1 unused entry of the caches with 1 MB was removed (model old).",)
    assert not old.exists()
    # The sentence is about the first run's workspace at that time: a repeated result does not have it.
    assert run_stage_program("dataset", inputs, environment=limit, attempt="1.2").result.warnings == ()
