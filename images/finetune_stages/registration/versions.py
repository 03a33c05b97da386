"""Choice of a record's version: that of an earlier attempt, the requested one, the next free one, or none."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal

from finetune_contract import reasons
from finetune_stages.sdk import StageError

from .record import GATE, LABEL, REJECTED, UID, Record

_PATCH = re.compile(r"(v?\d+\.\d+\.)(\d+)")

OnExisting = Literal["NewVersion", "Fail", "Update"]


@dataclass(frozen=True)
class Entry:
    """A version in a registry.

    Attributes:
        version: the user's version, ``1.0.0``.
        key: the registry's key: Model Registry's id, MLflow's number.
        tags: its tags (MLflow) or text properties (Model Registry).
        complete: false if it has no URI of a model, because its registration was interrupted.
        run_id: its MLflow run.
    """

    version: str
    key: str
    tags: dict[str, str] = field(default_factory=dict)
    complete: bool = True
    run_id: str | None = None


@dataclass(frozen=True)
class Choice:
    """Choice of a version: complete ``entry`` (``Own``), overwrite it (``Update``), or create ``version`` (``Create``)."""

    action: Literal["Own", "Update", "Create"]
    version: str
    entry: Entry | None = None


def choose(record: Record, on_existing: OnExisting, entries: Sequence[Entry]) -> Choice:
    """Return the choice for ``record``, given ``entries``, the versions of the same model.

    An entry with the record's identity is its own, and so is an incomplete entry of an earlier round of the same run. A rejected model
    never overwrites an entry of an accepted one.

    Raises:
        StageError: ``VersionExists``.
    """
    for entry in entries:
        if record.identity.items() <= entry.tags.items():
            return Choice("Own", entry.version, entry)
    for entry in entries:
        if not entry.complete and entry.tags.get(UID) == record.identity[UID]:
            return Choice("Update", entry.version, entry)
    by_version = {entry.version: entry for entry in entries}
    existing = by_version.get(record.version)
    if existing is None:
        return Choice("Create", record.version)
    if on_existing == "Fail":
        raise version_exists(record.name, existing)
    if on_existing == "Update" and (not record.rejected or existing.tags.get(GATE) == REJECTED):
        return Choice("Update", existing.version, existing)
    return Choice("Create", next_version(record.version, by_version))


def version_exists(name: str, entry: Entry) -> StageError:
    """Return the error for an existing version."""
    run, namespace = (entry.tags.get(f"{LABEL}/{key}") for key in ("run", "namespace"))
    by = f" (registered by FineTuneRun {namespace}/{run})" if run and namespace else ""
    return StageError(
        reasons.VERSION_EXISTS,
        f"registry.version: {name} {entry.version} already exists{by}; set another version, or set"
        " registry.onExisting to NewVersion or Update.",
    )


def next_version(version: str, existing: Collection[str]) -> str:
    """Return ``version``, or the next free patch version after it.

    ``1.2.3`` becomes ``1.2.4``, ``1.2.5`` ... Other forms than ``major.minor.patch`` get a number after a dot: ``v1`` becomes
    ``v1.1``, ``1.2.3-rc1`` becomes ``1.2.3-rc1.1``.
    """
    if version not in existing:
        return version
    found = _PATCH.fullmatch(version)
    stem, last = (found[1], int(found[2])) if found else (f"{version}.", 0)
    return next(name for number in itertools.count(last + 1) if (name := f"{stem}{number}") not in existing)
