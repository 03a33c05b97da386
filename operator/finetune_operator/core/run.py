"""A FineTuneRun as ``plan`` reads it, and the status of each of its stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from finetune_contract.workspace import Attempt, RunLayout, run_root
from finetune_operator.api import reasons

from .resolved_spec import Cleanup, ResolvedSpec, Retry, read

State = Literal["Pending", "Running", "Retrying", "Succeeded", "Failed", "Skipped"]
ENDED: frozenset[State] = frozenset(("Succeeded", "Failed", "Skipped"))


@dataclass(frozen=True)
class StageStatus:
    """An entry of ``status.stages``.

    ``child_uid`` is empty until the child was observed. A missing child without uid is created again; with a uid it counts as lost.
    """

    name: str
    state: State = "Pending"
    attempt: int = 0
    round: int = 1
    child_kind: str = ""
    child_name: str = ""
    child_uid: str = ""
    started_at: str | None = None
    pods_started_at: str | None = None
    finished_at: str | None = None
    retry_at: str | None = None
    inputs_digest: str | None = None
    output_digest: str | None = None
    result_digest: str | None = None
    reused: bool = False
    failures: Mapping[str, int] = field(default_factory=dict)
    crash: str | None = None
    reason: str | None = None
    message: str | None = None
    releasing: bool = False
    """The stage has ended, and its child is to be deleted if a container of it still runs."""

    @property
    def ended(self) -> bool:
        """Whether the stage has reached its final state of this round."""
        return self.state in ENDED

    @property
    def this_attempt(self) -> Attempt:
        """The current attempt."""
        return Attempt(self.round, self.attempt)

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> StageStatus:
        """Return the status from an entry of ``status.stages``."""
        child = data.get("child") or {}
        return cls(
            name=data["name"], state=data["state"], attempt=data.get("attempt", 0), round=data.get("round", 1),
            child_kind=child.get("kind", ""), child_name=child.get("name", ""), child_uid=child.get("uid", ""),
            started_at=data.get("startedAt"), pods_started_at=data.get("podsStartedAt"), finished_at=data.get("finishedAt"), retry_at=data.get("retryAt"),
            inputs_digest=data.get("inputsDigest"), output_digest=data.get("outputDigest"), result_digest=data.get("resultDigest"),
            reused=data.get("reused", False),
            failures=data.get("failures") or {}, crash=data.get("crash"), reason=data.get("reason"), message=data.get("message"),
            releasing=child.get("releasing", False),
        )  # fmt: skip

    def as_status(self) -> dict[str, Any]:
        """Return the entry of ``status.stages``, without the fields that have no value."""
        child = {
            "kind": self.child_kind, "name": self.child_name, "uid": self.child_uid, "releasing": self.releasing or None,
        }  # fmt: skip
        entry = {
            "name": self.name, "state": self.state, "attempt": self.attempt or None, "round": self.round,
            "startedAt": self.started_at, "podsStartedAt": self.pods_started_at, "finishedAt": self.finished_at, "retryAt": self.retry_at,
            "child": {key: value for key, value in child.items() if value} if self.child_name else None,
            "inputsDigest": self.inputs_digest, "outputDigest": self.output_digest,
            "resultDigest": self.result_digest, "reused": self.reused or None,
            "failures": dict(self.failures) or None, "crash": self.crash, "reason": self.reason, "message": self.message,
        }  # fmt: skip
        return {key: value for key, value in entry.items() if value is not None}

    def but(self, **changes: Any) -> StageStatus:
        """Return a copy with some values changed."""
        return replace(self, **changes)


def all_stopped(stage_statuses: Iterable[StageStatus]) -> bool:
    """Return whether all running stages are suspended, so that none of their pods still runs."""
    return all(stage_status.reason == reasons.SUSPENDED for stage_status in stage_statuses if stage_status.state == "Running")


@dataclass(frozen=True)
class Run:
    """One FineTuneRun object. It is never changed: ``plan`` returns a new status."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    deleting: bool = False

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Run:
        """Return the run from an object of the API."""
        metadata = document["metadata"]
        return cls(
            name=metadata["name"], namespace=metadata.get("namespace", "default"), uid=metadata.get("uid", ""),
            generation=metadata.get("generation", 1), spec=document.get("spec") or {}, status=document.get("status") or {},
            labels=metadata.get("labels") or {}, deleting=bool(metadata.get("deletionTimestamp")),
        )  # fmt: skip

    @property
    def started(self) -> bool:
        """Whether the run was resolved, so that its input sections are frozen."""
        return bool(self.status.get("startedAt"))

    @property
    def ended(self) -> bool:
        """Whether the current round has ended."""
        return bool(self.status.get("finishedAt"))

    @property
    def round(self) -> int:
        """1, and one more for each rerun."""
        return int(self.status.get("round", 1))

    @cached_property
    def resolved(self) -> ResolvedSpec:
        """The effective values, fixed when the round started."""
        return ResolvedSpec((self.status.get("resolved") or {}).get("spec") or {})

    @property
    def retry(self) -> Retry:
        """``spec.retry``, which may be edited while the run is in progress."""
        return read(Retry, self._mutable("retry"))

    @property
    def cleanup(self) -> Cleanup:
        """``spec.cleanup``, which may be edited at any time."""
        return read(Cleanup, self._mutable("cleanup"))

    def _mutable(self, section: str) -> Mapping[str, Any]:
        """Return a section that may be edited at any time: the present values of ``spec`` over the resolved ones."""
        return {**(self.resolved.values.get(section) or {}), **(self.spec.get(section) or {})}

    @cached_property
    def stages(self) -> dict[str, StageStatus]:
        """The status of each stage by name, in order."""
        return {entry["name"]: StageStatus.parse(entry) for entry in self.status.get("stages") or ()}

    def with_status(self, status: Mapping[str, Any], stage_statuses: Mapping[str, StageStatus]) -> Run:
        """Return the run as it will be once ``status`` and ``stage_statuses`` are written."""
        copy = replace(self, status=status)
        copy.__dict__["stages"] = dict(stage_statuses)  # takes the place of the cached property
        if status.get("resolved") is self.status.get("resolved"):
            copy.__dict__["resolved"] = self.resolved  # with the sections that were read already
        return copy

    @property
    def layout(self) -> RunLayout:
        """The run's folder in the workspace."""
        return RunLayout(run_root(self.name, self.uid))

    @property
    def experiment(self) -> str | None:
        """The experiment that the run belongs to, by its label."""
        return self.labels.get("finetunerun.io/experiment")
