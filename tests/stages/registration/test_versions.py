"""Which version a record becomes beside those that are there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_stages.registration.record import GATE, MODEL_DIGEST, ROUND, UID, Record
from finetune_stages.registration.versions import Entry, choose, next_version
from finetune_stages.sdk import StageError


@pytest.mark.parametrize(
    ("wanted", "taken", "expected"),
    [
        ("1.0.0", [], "1.0.0"),
        ("1.0.0", ["0.9.0", "1.0.1"], "1.0.0"),
        ("1.0.0", ["1.0.0"], "1.0.1"),
        ("1.0.0", ["1.0.0", "1.0.1", "1.0.3"], "1.0.2"),
        ("1.0.9", ["1.0.9"], "1.0.10"),
        ("v2.3.4", ["v2.3.4"], "v2.3.5"),
        ("v1", ["v1"], "v1.1"),
        ("v1", ["v1", "v1.1", "v1.2"], "v1.3"),
        ("1.2", ["1.2"], "1.2.1"),
        ("1.2.3-rc1", ["1.2.3-rc1"], "1.2.3-rc1.1"),
        ("1.2.3+cpu", ["1.2.3+cpu"], "1.2.3+cpu.1"),
        ("2026-11", ["2026-11"], "2026-11.1"),
    ],
)
def test_the_next_free_version(wanted: str, taken: list[str], expected: str) -> None:
    assert next_version(wanted, taken) == expected


OTHER = {UID: "other", ROUND: "1", MODEL_DIGEST: "0" * 64}


@pytest.mark.parametrize(
    ("on_existing", "entries", "gate", "expected"),
    [
        ("Fail", [], None, ("Create", "1.0.0")),
        ("Fail", [Entry("0.9.0", "1", OTHER)], None, ("Create", "1.0.0")),
        ("NewVersion", [Entry("1.0.0", "1", OTHER)], None, ("Create", "1.0.1")),
        ("Update", [Entry("1.0.0", "1", OTHER)], None, ("Update", "1.0.0")),
        ("Update", [Entry("1.0.0", "1", OTHER)], "passed", ("Update", "1.0.0")),
        ("Update", [Entry("1.0.0", "1", {})], None, ("Update", "1.0.0")),  # made by other hands
        ("Update", [Entry("1.0.0", "1", OTHER)], "rejected", ("Create", "1.0.1")),
        ("Update", [Entry("1.0.0", "1", {**OTHER, GATE: "rejected"})], "rejected", ("Update", "1.0.0")),
        ("Update", [Entry("1.0.0", "1", {**OTHER, GATE: "rejected"})], "passed", ("Update", "1.0.0")),
        ("Fail", [Entry("1.0.0", "1", {"own": ""})], None, ("Own", "1.0.0")),
        ("NewVersion", [Entry("1.0.0", "1", OTHER), Entry("1.0.1", "2", {"own": ""})], None, ("Own", "1.0.1")),
        ("Fail", [Entry("1.0.0", "1", {"own": "", ROUND: "0"}, complete=False)], None, ("Update", "1.0.0")),
        ("NewVersion", [Entry("1.0.0", "1", {"own": "", ROUND: "0"})], None, ("Create", "1.0.1")),
        ("NewVersion", [Entry("1.0.0", "1", OTHER, complete=False)], None, ("Create", "1.0.1")),
    ],
)
def test_what_a_record_becomes(
    record: Record, on_existing: Any, entries: list[Entry], gate: str | None, expected: tuple[str, str]
) -> None:
    """``own`` among the tags is replaced by the record's identity."""
    there = [replace(one, tags={**record.identity, **one.tags} if "own" in one.tags else one.tags) for one in entries]
    chosen = choose(replace(record, gate=gate), on_existing, there)
    assert (chosen.action, chosen.version) == expected
    assert chosen.action == "Create" or chosen.entry in there


@pytest.mark.parametrize(
    "tags", [OTHER, {**OTHER, GATE: "rejected"}, {"finetunerun.io/run": "a", "finetunerun.io/namespace": "b"}]
)
def test_a_version_that_may_not_exist(record: Record, tags: dict[str, str]) -> None:
    with pytest.raises(StageError, match=r"registry\.version: pydoc-helper 1\.0\.0 already exists") as raised:
        choose(record, "Fail", [Entry("1.0.0", "1", tags)])
    assert raised.value.reason.name == "VersionExists"
    assert ("registered by FineTuneRun b/a" in raised.value.message) == ("finetunerun.io/run" in tags)
