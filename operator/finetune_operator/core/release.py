"""The removal of a child of which something still runs although its stage has ended, so that it holds no GPU and no quota.

A container that somebody else added to a pod (a service mesh's proxy, an agent) may never end. The Job is then active for ever.
"""

from __future__ import annotations

from .decision import Delete
from .draft import Draft
from .observation import ChildState, child_ref, child_state, controller_of
from .run import StageRecord
from .times import seconds_between

SIDECAR_SECONDS = 10.0
"""How long sidecars may take to end by themselves after a stage has succeeded: the pods, and with them their logs, are then kept."""
_LOOK_SECONDS = 1.0


def holds(draft: Draft, record: StageRecord) -> bool:
    """Return whether containers of a stage's child still run: the child has not ended, and not all of its pods have."""
    child = draft.observed.child(record)
    if child is None or child_state(child) in (ChildState.SUCCEEDED, ChildState.FAILED):
        return False
    pods = draft.observed.pods.get(record.name, ())
    if pods and all(pod.over for pod in pods):
        return False
    return bool(controller_of(child).get("uid") == draft.run.uid)


def remove(draft: Draft, record: StageRecord) -> bool:
    """Delete a child that still runs. Return whether it still has to go; one whose pods have all ended stays, for its logs."""
    if not holds(draft, record):
        return False
    draft.effects.append(Delete(child_ref(record), draft.observed.objects[child_ref(record)]["metadata"]["uid"]))
    return True


def release(draft: Draft, record: StageRecord) -> None:
    """Remove the child of a stage that has ended, once its sidecars have had their time; forget it when nothing of it runs."""
    if not record.releasing:
        return
    child = draft.observed.child(record)
    if child is None or child["metadata"].get("deletionTimestamp") or not holds(draft, record):
        draft.record(record.but(releasing=False))
        return
    left = SIDECAR_SECONDS - (seconds_between(record.finished_at, draft.time) or 0.0) if record.state == "Succeeded" else 0.0
    if left > 0:
        draft.look_again(left)
    else:
        remove(draft, record)
        draft.look_again(_LOOK_SECONDS)
