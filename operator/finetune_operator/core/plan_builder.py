"""Collector of what one pass of ``plan`` decides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from finetune_contract.reasons import Reason
from finetune_contract.result import WARNING_LENGTH
from finetune_operator.api.reasons import resumes_alone
from finetune_operator.api.status import STATUS_WARNINGS_LIMIT

from . import stages
from .condition import find_condition
from .decision import Effect
from .messages import status_message
from .observation import Observed
from .paths import Json
from .run import Run, StageStatus
from .times import moment, stamp


class PlanBuilder:
    """Collects stage statuses, status fields and effects. Nothing is written before the pass is over."""

    def __init__(self, run: Run, observed: Observed, now: datetime) -> None:
        self.run = run
        self.observed = observed
        self.now = now
        self.time = stamp(now)
        self.stages: dict[str, StageStatus] = dict(run.stages)
        self.fields: Json = {}
        self.effects: list[Effect] = []
        self.blockers: list[tuple[Reason, str]] = []
        """Reason and message of each problem that only somebody outside the operator can fix."""
        self._again: float | None = None

    @property
    def suspended(self) -> bool:
        """Whether ``spec.suspend`` is true."""
        return bool(self.run.spec.get("suspend"))

    @property
    def suspended_for(self) -> float:
        """Seconds since the condition ``Suspended`` became true; 0 if it is not."""
        condition = find_condition(self.run.status, "Suspended")
        held = condition is not None and condition["status"] == "True"
        return (self.now - moment(condition["lastTransitionTime"])).total_seconds() if condition and held else 0.0

    @property
    def blocker(self) -> tuple[Reason, str] | None:
        """The blocker to report: one that somebody must fix, before those that resolve by themselves."""
        return next((found for found in self.blockers if not resumes_alone(found[0])), next(iter(self.blockers), None))

    @property
    def model_rejection(self) -> StageStatus | None:
        """The stage that has rejected the model, if one has."""
        return stages.GRAPH.model_rejection(self.stages)

    @property
    def view(self) -> Run:
        """The run with everything that this pass has decided."""
        return self.run.with_status({**self.run.status, **self.fields}, self.stages)

    def get(self, field: str) -> Any:
        """Return a top-level field of status as it will be written."""
        return self.fields[field] if field in self.fields else self.run.status.get(field)

    def set_stage(self, stage_status: StageStatus) -> None:
        """Set the status of a stage."""
        self.stages[stage_status.name] = stage_status

    def update_status(self, found: Json) -> None:
        """Set top-level fields of status. An object is merged into the present one; any other value replaces it."""
        for field, value in found.items():
            old = self.get(field)
            self.fields[field] = {**(old or {}), **value} if isinstance(value, dict) else value

    def warn(self, stage: str, messages: Sequence[str]) -> None:
        """Set the warnings of a stage that has succeeded. They replace those of its last round."""
        others = [warning for warning in self.get("warnings") or () if warning["stage"] != stage]
        found = [*others, *({"stage": stage, "message": status_message(message)[:WARNING_LENGTH]} for message in messages)]
        if len(found) > STATUS_WARNINGS_LIMIT:
            newest = found[1 - STATUS_WARNINGS_LIMIT :]
            found = [
                {"stage": newest[0]["stage"], "message": "Earlier warnings are left out here; see the logs of the stages."},
                *newest,
            ]
        self.fields["warnings"] = found or None

    def block(self, stage_status: StageStatus, reason: Reason, message: str) -> None:
        """Report that a stage waits for something that only somebody outside the operator can fix."""
        message = status_message(message)
        self.blockers.append((reason, message))
        self.set_stage(stage_status.but(reason=reason.name, message=message or None))

    def requeue_after(self, seconds: float) -> None:
        """Request another pass after ``seconds`` at the latest."""
        self._again = seconds if self._again is None else min(self._again, seconds)

    def requeue_at(self, time: str) -> None:
        """Request another pass at a time."""
        self.requeue_after(max(0.0, (moment(time) - self.now).total_seconds()))

    def later(self, seconds: float) -> str:
        """Return the stamp of the time in ``seconds``, rounded up because stamps have whole seconds."""
        return stamp(self.now + timedelta(seconds=seconds) + (timedelta(microseconds=999_999) if seconds else timedelta()))

    @property
    def requeue_delay(self) -> float | None:
        """Seconds after which time alone may change the decision."""
        return self._again
