"""The pods of a child: those that it controls, and those of a TrainJob that the Job of its JobSet controls.

Labels prove nothing, because any user who can create pods can copy them. A pod that only has the labels is ignored. It is not reported:
otherwise any such user could stop a run.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from finetune_operator.api.kinds import JOB, JOBSET, TRAINJOB
from finetune_operator.core.naming import TRAINJOB_CONTAINER as NODE
from finetune_operator.core.observation import controller_of

from .cluster import Cluster, Object
from .errors import NotFound

_LIMIT = 20_000
"""Entries of the cache: about 4 MB."""


class Lineage:
    """Cache of the children that controllers of pods belong to, by UID. An object keeps its UID and its controller for its life."""

    def __init__(self) -> None:
        self._children: OrderedDict[tuple[str, str], bool] = OrderedDict()
        """Whether a controller (first) belongs to a child (second)."""

    def is_ours(self, controller: str, child: str) -> bool | None:
        """Return whether a pod with this controller belongs to a child, ``None`` if that must be read. Both are UIDs."""
        return controller == child or (self._children.get((controller, child)) if controller else False)

    async def read(self, cluster: Cluster, child: Object, pods: Sequence[Object]) -> list[Object]:
        """Return those of ``pods`` that belong to a child, of which only kind and metadata are needed.

        Raises:
            ApiError: a call failed.
        """
        uid = child["metadata"]["uid"]
        unknown = {owner for pod in pods if self.is_ours(owner := controller_uid(pod), uid) is None}
        if unknown:
            job = await _job_of(cluster, child) if child["kind"] == TRAINJOB.name else None
            for owner in unknown:
                self._remember(owner, uid, ours=owner == job)
        return [pod for pod in pods if self.is_ours(controller_uid(pod), uid)]

    def _remember(self, controller: str, child: str, *, ours: bool) -> None:
        self._children[controller, child] = ours
        if len(self._children) > _LIMIT:
            self._children.popitem(last=False)


def controller_uid(item: Object) -> str:
    """Return the UID of the object that controls an object, empty where none does."""
    return str(controller_of(item).get("uid", ""))


async def jobset_of(cluster: Cluster, trainjob: Object) -> str | None:
    """Return the UID of the JobSet of a TrainJob, which has its name; ``None`` if there is none, or if it is another object's.

    Raises:
        ApiError: a call failed.
    """
    metadata = trainjob["metadata"]
    try:
        jobset = await cluster.get_metadata(JOBSET, metadata["namespace"], metadata["name"])
    except NotFound:
        return None
    return str(jobset["metadata"]["uid"]) if controller_uid(jobset) == metadata["uid"] else None


async def _job_of(cluster: Cluster, trainjob: Object) -> str | None:
    """Return the UID of the Job with the pods of a TrainJob. JobSet names it after the replicated job of the runtime."""
    metadata = trainjob["metadata"]
    jobset = await jobset_of(cluster, trainjob)
    if jobset is None:
        return None
    try:
        job = await cluster.get_metadata(JOB, metadata["namespace"], f"{metadata['name']}-{NODE}-0")
    except NotFound:
        return None
    return str(job["metadata"]["uid"]) if controller_uid(job) == jobset else None
