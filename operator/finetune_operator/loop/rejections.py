"""Effects that the API server rejected, by run.

The pass after a rejection reports it. The effect is carried out again after a pause, and its rejection is reported until it succeeds,
so that the conditions of the run do not change with every retry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from finetune_operator.core.decision import Decision, Effect
from finetune_operator.core.observation import Ref, Rejection

from .cluster import RunKey


@dataclass(frozen=True)
class _Entry:
    effect: type[Effect]
    rejection: Rejection
    retry_at: datetime

    def postpones(self, effect: Effect, now: datetime) -> bool:
        """Return whether an effect on the same object waits: another one, such as a deletion, does not."""
        return type(effect) is self.effect and self.retry_at > now


class Rejections:
    """Cache of the last rejection of each effect that a run still needs."""

    def __init__(self) -> None:
        self._entries: dict[RunKey, dict[Ref, _Entry]] = {}

    def of_run(self, key: RunKey) -> dict[Ref, Rejection]:
        """Return the rejections of a run, by the object that the effect is about."""
        return {ref: entry.rejection for ref, entry in self._entries.get(key, {}).items()}

    def postpone(self, key: RunKey, decision: Decision, now: datetime) -> Decision:
        """Return a decision without the effects that were rejected and whose retry is not due at ``now``."""
        entries = self._entries.get(key, {})
        due = tuple(
            effect for effect in decision.effects if effect.ref not in entries or not entries[effect.ref].postpones(effect, now)
        )
        return replace(decision, effects=due)

    def observe_pass(
        self, key: RunKey, decision: Decision, carried_out: Decision, rejected: Mapping[Ref, Rejection], retry_at: datetime
    ) -> bool:
        """Record the rejections of a pass. Return whether one of them is not reported yet.

        Args:
            key: the run.
            decision: what the pass decided. An effect that it does not contain is no longer needed.
            carried_out: the decision without the effects that :meth:`postpone` left out.
            rejected: the effects that the API server rejected in this pass.
            retry_at: when they are due again.
        """
        before = self._entries.pop(key, {})
        postponed = {effect.ref for effect in decision.effects} - {effect.ref for effect in carried_out.effects}
        entries = {ref: entry for ref, entry in before.items() if ref in postponed}
        kinds = {effect.ref: type(effect) for effect in carried_out.effects}
        entries |= {ref: _Entry(kinds[ref], rejection, retry_at) for ref, rejection in rejected.items()}
        if entries:
            self._entries[key] = entries
        return any(ref not in before or before[ref].rejection != rejection for ref, rejection in rejected.items())

    def retry_at(self, key: RunKey) -> datetime | None:
        """Return when the first rejected effect of a run is due again; ``None`` if there is none."""
        return min((entry.retry_at for entry in self._entries.get(key, {}).values()), default=None)

    def forget(self, key: RunKey) -> None:
        """Drop the rejections of a run."""
        self._entries.pop(key, None)
