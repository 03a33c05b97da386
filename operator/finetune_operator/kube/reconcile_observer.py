"""Log lines and metrics of passes: one line for each transition, and none for a pass that changes nothing."""

from __future__ import annotations

import logging

from finetune_operator.core.decision import Decision
from finetune_operator.core.run import Run

from .serving import Metrics

log = logging.getLogger(__name__)


class ReconcileObserver:
    """Observer of the passes of a :class:`~finetune_operator.loop.controller.Controller`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def __call__(self, run: Run, decision: Decision, seconds: float) -> None:
        """Record a pass of ``seconds`` over ``run``."""
        self._metrics.reconciles.observe(seconds)
        for event in decision.events:
            self._metrics.transitions.labels(event.reason).inc()
            fields = {
                "run": f"{run.namespace}/{run.name}", "uid": run.uid, "generation": run.generation, "stage": event.stage,
                "attempt": event.attempt, "reason": event.reason,
            }  # fmt: skip
            # The failure of a run concerns its user and is not an error of the operator.
            log.info("%s", event.message, extra={name: value for name, value in fields.items() if value is not None})
