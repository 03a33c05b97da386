"""The objects that the contract suite makes."""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Any

from finetune_operator.api.kinds import CLAIM, CONFIGMAP, EVENT, FINETUNERUN, JOB, POD
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import NotFound

KINDS = (FINETUNERUN, JOB, POD, CLAIM, CONFIGMAP, EVENT)


class Maker:
    """Makes objects of one test: their names, and a label that selects them all."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.test = f"t{uuid.uuid4().hex[:10]}"
        self.labels = {"contract.test/name": self.test}

    def name(self, suffix: str = "a") -> str:
        """A name that no other test uses."""
        return f"{self.test}-{suffix}"

    def run(self, suffix: str = "a", **spec: Any) -> Object:
        """The manifest of a FineTuneRun."""
        document = {"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", **self._metadata(suffix)}
        return {**document, "spec": {"dataset": {"uri": "tatsu-lab/alpaca"}, **spec}}

    def config_map(self, suffix: str = "a", **fields: Any) -> Object:
        """The manifest of a ConfigMap."""
        return {"apiVersion": "v1", "kind": "ConfigMap", **self._metadata(suffix), "data": {"key": "value"}, **fields}

    def pod(self, suffix: str = "a", **spec: Any) -> Object:
        """The manifest of a Pod."""
        container = {"name": "main", "image": "example.com/image"}
        common = {"containers": [container], "automountServiceAccountToken": False, "terminationGracePeriodSeconds": 5}
        return {"apiVersion": "v1", "kind": "Pod", **self._metadata(suffix), "spec": {**common, **spec}}

    def owned(self, manifest: Object, *owners: Object, **more: Any) -> Object:
        """``manifest`` as a dependent of ``owners``."""
        references = [
            {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
             "uid": owner["metadata"]["uid"], **more}
            for owner in owners
        ]  # fmt: skip
        return {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": references}}

    async def clean(self) -> None:
        """Remove all objects of the test."""
        for kind in KINDS:
            for item in (await self.cluster.list(kind, "default", labels=self.labels)).items:
                name = item["metadata"]["name"]
                with suppress(NotFound):
                    await self.cluster.patch(kind, "default", name, {"metadata": {"finalizers": None}})
                    await self.cluster.delete(kind, "default", name, grace_seconds=0)

    def _metadata(self, suffix: str) -> Object:
        return {"metadata": {"name": self.name(suffix), "namespace": "default", "labels": dict(self.labels)}}
