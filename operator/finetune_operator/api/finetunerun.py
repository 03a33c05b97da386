"""Root of the resource: its names, and the rules that span spec and status.

The API server also evaluates root rules on status updates. Each rule here therefore applies only if its part of spec has changed, so
that a rule of a later release never blocks the status of an object that an earlier release accepted.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from .section import Rule, Section
from .spec import FineTuneRunSpec
from .stages import DATASET, EVALUATION, GATE, MODEL, REGISTRATION, RERUN_TARGETS, TRAINING, StageDefinition
from .status import FineTuneRunStatus

GROUP = "finetunerun.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "FineTuneRun"
PLURAL = "finetuneruns"
NAME_LIMIT = 52
NAME_PATTERN = "^[a-z]([-a-z0-9]*[a-z0-9])?$"


def _reruns_until(last: StageDefinition) -> tuple[str, ...]:
    """Return the values of ``rerun.from`` from the first to ``last``."""
    return RERUN_TARGETS[: RERUN_TARGETS.index(last.name) + 1]


FROZEN_SECTIONS: dict[str, tuple[str, ...]] = {
    "dataset": _reruns_until(DATASET),
    "model": _reruns_until(MODEL),
    "training": _reruns_until(TRAINING),
    "evaluation": _reruns_until(EVALUATION),
    "gate": _reruns_until(GATE),
    "registry": _reruns_until(REGISTRATION),
    "publish": _reruns_until(REGISTRATION),
    "storage": (),
    "queue": _reruns_until(REGISTRATION),
    "serviceAccountName": _reruns_until(REGISTRATION),
}
"""The sections that freeze when a run starts, each with the reruns that may change it."""

IS_FROZEN = "is frozen since the run started"
"""In the message about an edit of a frozen section."""

_STARTED = "has(oldSelf.status) && has(oldSelf.status.startedAt)"
_ENDED = "has(oldSelf.status) && has(oldSelf.status.finishedAt)"
_NEW_RERUN = "has(self.spec.rerun) && (!has(oldSelf.status.rerunId) || self.spec.rerun.id != oldSelf.status.rerunId)"
"""A rerun that has not started: a rejected rerun can be corrected under the same id."""


def _same(path: str) -> str:
    """Return an expression that is true if an optional field of spec is unchanged."""
    return f"has(self.spec.{path}) == has(oldSelf.spec.{path}) && (!has(self.spec.{path}) || self.spec.{path} == oldSelf.spec.{path})"


def _same_but_size() -> str:
    """Return an expression that is true if ``storage`` is unchanged except for its size, which another rule allows to grow."""
    fields = " && ".join(
        f"has(self.spec.storage.{field}) == has(oldSelf.spec.storage.{field})"
        f" && (!has(self.spec.storage.{field}) || self.spec.storage.{field} == oldSelf.spec.storage.{field})"
        for field in ("claimName", "storageClassName", "accessModes")
    )
    return (
        "has(self.spec.storage) == has(oldSelf.spec.storage) && (!has(self.spec.storage) || ("
        f"{fields} && has(self.spec.storage.size) == has(oldSelf.spec.storage.size)))"
    )


def _frozen(section: str, reruns: tuple[str, ...]) -> Rule:
    unchanged = _same_but_size() if section == "storage" else _same(section)
    listed = ", ".join(f"'{stage}'" for stage in reruns)
    allowed = f" || ({_ENDED} && {_NEW_RERUN} && self.spec.rerun.from in [{listed}])" if reruns else ""
    advice = f", or after its end set a new rerun.id with rerun.from: {reruns[-1]}" if reruns else ""
    return Rule(
        f"({unchanged}) || !({_STARTED}){allowed}",
        f"spec.{section} {IS_FROZEN}: make a new run from it (finetune clone){advice}",
        field=f".spec.{section}",
    )


class FineTuneRun(Section):
    """FineTuneRun fine-tunes one language model: dataset, training, evaluation, gate and registration."""

    RULES = (
        Rule(
            f"self.metadata.name.size() <= {NAME_LIMIT} && self.metadata.name.matches('{NAME_PATTERN}')",
            f"metadata.name must have at most {NAME_LIMIT} characters, lower-case letters, digits and dashes only, a letter first and a"
            " letter or digit last; correct it",
            field=".metadata",
        ),
        *(_frozen(section, reruns) for section, reruns in FROZEN_SECTIONS.items()),
        Rule(
            f"({_same('rerun')}) || !({_STARTED}) || (({_ENDED}) && has(self.spec.rerun))",
            "spec.rerun opens a new round of a run that has ended: wait for its end, and do not remove it",
            field=".spec.rerun",
        ),
    )

    api_version: str = Field(API_VERSION)
    kind: str = Field(KIND)
    metadata: dict[str, Any] = Field(default_factory=dict)
    spec: FineTuneRunSpec = Field(description="Desired state of the run.")
    status: FineTuneRunStatus | None = Field(None, description="Observed state of the run. Written by the operator only.")
