"""What the operator does, as log lines and metrics: a line a transition, nothing for a pass that changed nothing."""

from __future__ import annotations

import logging

from finetune_operator.core.decision import Decision
from finetune_operator.core.run import Run

from .serving import Metrics

log = logging.getLogger(__name__)


class ReconcileObserver:
    """Told of each pass by the :class:`~finetune_operator.loop.controller.Controller`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __call__(self, run: Run, decision: Decision, seconds: float) -> None:
        """One pass."""
        self._metrics.reconciles.observe(seconds)
        for event in decision.events:
            self._metrics.transitions.labels(event.reason).inc()
            about = {
                "run": f"{run.namespace}/{run.name}", "uid": run.uid, "generation": run.generation, "stage": event.stage,
                "attempt": event.attempt, "reason": event.reason,
            }  # fmt: skip
            # A run that fails is news of its user, and no trouble of the operator.
            log.info("%s", event.message, extra={name: value for name, value in about.items() if value is not None})
