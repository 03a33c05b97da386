"""The baseline of a run on a real node: the same pods, created one after the other, without Jobs, TrainJobs and operator."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from functools import partial
from typing import Any

from node_observer import BARE_RUN, BARE_STAGE, NodeObserver

from finetune_operator.api.kinds import CONFIGMAP, POD
from finetune_operator.core.naming import RUN_LABEL, STAGE_LABEL
from finetune_operator.kube.client import ApiServer

Object = dict[str, Any]
_INDEX = "batch.kubernetes.io/job-completion-index"
"""A Job's label and annotation that a TrainJob's pods read their rank from."""


class BarePods:
    """Repeats the pods of a finished run, each time for a run with another name.

    Args:
        server: where.
        run: the finished run, with its status.
        pods: its pods, as they were.
        documents: the ConfigMap with its stages' inputs.
    """

    def __init__(self, server: ApiServer, run: Object, pods: list[Object], documents: Object) -> None:
        self._server, self._run = server, run["metadata"]
        self._pods = {pod["metadata"]["labels"][STAGE_LABEL]: json.dumps(_bare(pod)) for pod in pods}
        metadata = {key: documents["metadata"][key] for key in ("name", "namespace")}
        kind = {"apiVersion": "v1", "kind": "ConfigMap"}
        self._documents = json.dumps({**kind, "metadata": metadata, "data": documents["data"], "immutable": True})

    @classmethod
    async def of(cls, server: ApiServer, run: Object) -> BarePods:
        """Return the pods of a finished run."""
        namespace, name = run["metadata"]["namespace"], run["metadata"]["name"]
        pods = (await server.list(POD, namespace, labels={RUN_LABEL: name})).items
        named = {volume["configMap"]["name"] for pod in pods for volume in pod["spec"]["volumes"] if "configMap" in volume}
        (documents,) = (one for one in named if one.startswith(name))
        return cls(server, run, pods, await server.get(CONFIGMAP, namespace, documents))

    async def run(self, observer: NodeObserver, name: str, order: Sequence[Sequence[str]]) -> float:
        """Create the pods of each group as soon as the group before has ended; return when the first was requested.

        The documents exist before: the time in which the operator writes them counts against the operator.
        """
        uid = str(uuid.uuid4())
        await self._server.create(self._renamed(self._documents, name, uid))
        began = time.time()
        for group in order:
            for stage in group:
                await self._server.create(self._renamed(self._pods[stage], name, uid))
            await observer.until(partial(observer.have_ended, name, group))
        return began

    def _renamed(self, template: str, name: str, uid: str) -> Object:
        manifest: Object = json.loads(template.replace(self._run["name"], name).replace(self._run["uid"], uid))
        if manifest["kind"] == "Pod":
            manifest["metadata"]["labels"][BARE_RUN] = name
        return manifest


def _bare(pod: Object) -> Object:
    """Return the pod as its manifest: without owner and node."""
    metadata, spec = pod["metadata"], {key: value for key, value in pod["spec"].items() if key != "nodeName"}
    index = {_INDEX: metadata["labels"][_INDEX]} if _INDEX in metadata["labels"] else {}
    labels = {**index, BARE_STAGE: metadata["labels"][STAGE_LABEL]}
    about = {"name": metadata["name"], "namespace": metadata["namespace"], "labels": labels, "annotations": index}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec}
