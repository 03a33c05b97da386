"""A decision in the making: what one pass of ``plan`` has decided so far."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from finetune_contract.reasons import Reason
from finetune_contract.result import WARNING_LENGTH
from finetune_operator.api.reasons import resumes_alone
from finetune_operator.api.status import MESSAGE_LIMIT, STATUS_WARNINGS_LIMIT

from .decision import Effect
from .observation import Observed
from .paths import Json
from .run import Run, StageStatus
from .times import moment, stamp


class PlanBuilder:
    """Collects records, status fields and effects; nothing is written before the pass is over."""

    def __init__(self, run: Run, observed: Observed, now: datetime) -> None:
        self.run = run
        self.observed = observed
        self.now = now
        self.time = stamp(now)
        self.stages: dict[str, StageStatus] = dict(run.stages)
        self.fields: Json = {}
        self.effects: list[Effect] = []
        self.blockers: list[tuple[Reason, str]] = []
        """Reason and sentence of each thing that only somebody outside can mend."""
        self._again: float | None = None

    @property
    def suspended(self) -> bool:
        """Whether the user holds the run."""
        return bool(self.run.spec.get("suspend"))

    @property
    def suspended_for(self) -> float:
        """Seconds since the run says of itself that it is suspended."""
        for condition in self.run.status.get("conditions") or ():
            if condition["type"] == "Suspended" and condition["status"] == "True":
                return (self.now - moment(condition["lastTransitionTime"])).total_seconds()
        return 0.0

    @property
    def blocker(self) -> tuple[Reason, str] | None:
        """The blocker to report: one that somebody must remove, before those that pass by themselves."""
        return next((found for found in self.blockers if not resumes_alone(found[0])), next(iter(self.blockers), None))

    @property
    def rejected(self) -> bool:
        """Whether the gate has not let the model pass."""
        return (self.get("gate") or {}).get("passed") is False

    @property
    def view(self) -> Run:
        """The run as it is now, with all that this pass has decided."""
        return self.run.with_status({**self.run.status, **self.fields}, self.stages)

    def get(self, field: str) -> Any:
        """A top-level field of status, as it will be written."""
        return self.fields[field] if field in self.fields else self.run.status.get(field)

    def set_stage(self, stage_status: StageStatus) -> None:
        """Keep a stage's new record."""
        self.stages[stage_status.name] = stage_status

    def update_status(self, found: Json) -> None:
        """Add what a stage tells: objects are merged into the status field, everything else replaces it."""
        for field, value in found.items():
            old = self.get(field)
            self.fields[field] = {**(old or {}), **value} if isinstance(value, dict) else value

    def warn(self, stage: str, messages: Sequence[str]) -> None:
        """Keep the warnings of a stage that has succeeded, in place of those of its last round."""
        others = [warning for warning in self.get("warnings") or () if warning["stage"] != stage]
        found = [*others, *({"stage": stage, "message": message[:WARNING_LENGTH]} for message in messages)]
        if len(found) > STATUS_WARNINGS_LIMIT:
            newest = found[1 - STATUS_WARNINGS_LIMIT :]
            found = [
                {"stage": newest[0]["stage"], "message": "Earlier warnings are left out here; see the logs of the stages."},
                *newest,
            ]
        self.fields["warnings"] = found or None

    def block(self, stage_status: StageStatus, reason: Reason, message: str) -> None:
        """A stage waits for something that only somebody outside can mend."""
        self.blockers.append((reason, message))
        self.set_stage(stage_status.but(reason=reason.name, message=message[:MESSAGE_LIMIT] or None))

    def requeue_after(self, seconds: float) -> None:
        """Ask for another pass after that time at the latest."""
        self._again = seconds if self._again is None else min(self._again, seconds)

    def requeue_at(self, time: str) -> None:
        """Ask for another pass at that time."""
        self.requeue_after(max(0.0, (moment(time) - self.now).total_seconds()))

    def later(self, seconds: float) -> str:
        """The stamp of a time from now; never too early, although stamps have whole seconds."""
        return stamp(self.now + timedelta(seconds=seconds) + (timedelta(microseconds=999_999) if seconds else timedelta()))

    @property
    def requeue_delay(self) -> float | None:
        """Seconds after which time alone may change the decision."""
        return self._again
