"""Which version a record becomes: its own that an earlier attempt began, the wanted one, the next free one, or none."""

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
        version: as users say it, ``1.0.0``.
        key: as the registry says it: Model Registry's id, MLflow's number.
        tags: its tags (MLflow) or the text among its custom properties (Model Registry).
        complete: false if nothing says where the model is: whoever began it was cut short.
        run_id: the MLflow run that it belongs to.
    """

    version: str
    key: str
    tags: dict[str, str] = field(default_factory=dict)
    complete: bool = True
    run_id: str | None = None


@dataclass(frozen=True)
class Choice:
    """What to do: take up ``entry`` (``Own``), overwrite it (``Update``), or make ``version`` (``Create``)."""

    action: Literal["Own", "Update", "Create"]
    version: str
    entry: Entry | None = None


def choose(record: Record, on_existing: OnExisting, entries: Sequence[Entry]) -> Choice:
    """Return what ``record`` becomes beside ``entries``, the versions of the same model.

    An entry with the record's identity is always its own. One that an earlier round of the same run left without saying where its
    model is becomes its own. A rejected model never takes over the entry of one that was not.

    Raises:
        StageError: ``VersionExists``.
    """
    for entry in entries:
        if record.identity.items() <= entry.tags.items():
            return Choice("Own", entry.version, entry)
    for entry in entries:
        if not entry.complete and entry.tags.get(UID) == record.identity[UID]:
            return Choice("Update", entry.version, entry)
    taken = {entry.version: entry for entry in entries}
    existing = taken.get(record.version)
    if existing is None:
        return Choice("Create", record.version)
    if on_existing == "Fail":
        raise version_exists(record.name, existing)
    if on_existing == "Update" and (not record.rejected or existing.tags.get(GATE) == REJECTED):
        return Choice("Update", existing.version, existing)
    return Choice("Create", next_version(record.version, taken))


def version_exists(name: str, entry: Entry) -> StageError:
    """Return the failure of a run that wants a version which exists."""
    run, namespace = (entry.tags.get(f"{LABEL}/{key}") for key in ("run", "namespace"))
    by = f" (registered by FineTuneRun {namespace}/{run})" if run and namespace else ""
    return StageError(
        reasons.VERSION_EXISTS,
        f"registry.version: {name} {entry.version} is in the registry already{by}; choose another version, or set"
        " registry.onExisting to NewVersion or Update.",
    )


def next_version(wanted: str, taken: Collection[str]) -> str:
    """Return ``wanted``, or the next free patch version after it.

    ``1.2.3`` becomes ``1.2.4``, ``1.2.5`` ... What is no plain ``major.minor.patch`` gets a number of its own behind a dot:
    ``v1`` becomes ``v1.1``, ``1.2.3-rc1`` becomes ``1.2.3-rc1.1``, so that what its owner means by it stays readable.
    """
    if wanted not in taken:
        return wanted
    found = _PATCH.fullmatch(wanted)
    stem, last = (found[1], int(found[2])) if found else (f"{wanted}.", 0)
    return next(name for number in itertools.count(last + 1) if (name := f"{stem}{number}") not in taken)
