"""Runs whose next status the API server rejects.

Every later pass computes the same status. So the run fails once the rejection persists, and its last status is kept otherwise.
"""

from __future__ import annotations

from finetune_operator.api.reasons import STATUS_REJECTED

from .decision import Decision
from .messages import status_message
from .run import Run


def fail_rejected(run: Run, message: str) -> Decision | None:
    """Return the decision about a run whose next status is rejected with ``message``: the run fails, and the next pass stops its stages.

    ``None`` for a run that has not started, has ended or fails already.
    """
    if not run.started or run.ended or run.deleting or run.status.get("failure"):
        return None
    text = f"status: the API server rejected the next status: {message}"
    failure = {"reason": STATUS_REJECTED.name, "message": status_message(text), "hint": STATUS_REJECTED.remedy}
    return Decision({**run.status, "failure": failure})
