"""What the ConfigMaps of runs hold, as digests. Each is read once and known by its uid and version from then on."""

from __future__ import annotations

from collections import OrderedDict

from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.core.manifests.children import content_digest
from finetune_operator.core.manifests.pod import ENTRY_FILE
from finetune_operator.training_bundle import bundle_digest

from .cluster import Cluster, Object

_MOST = 20_000
"""Digests that are kept: about 4 MB."""


class ConfigMapContents:
    """Cache of the digests of ConfigMaps. They are large, so that passes read their metadata only."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str], str] = OrderedDict()

    async def read(self, cluster: Cluster, namespace: str, name: str) -> tuple[Object, str]:
        """Return the metadata of a ConfigMap and the digest of what it holds.

        Raises:
            NotFound: there is none of that name.
            ApiError: a call failed.
        """
        item = await cluster.get_metadata(CONFIGMAP, namespace, name)
        if _version(item) not in self._known:
            item = await cluster.get(CONFIGMAP, namespace, name)
            self.remember(item)
        return {"metadata": item["metadata"]}, self._known[_version(item)]

    def remember(self, configmap: Object) -> None:
        """Keep the digest of a ConfigMap that was read, or that the API server returned for its creation."""
        self._known[_version(configmap)] = _digest(configmap)
        self._known.move_to_end(_version(configmap))
        if len(self._known) > _MOST:
            self._known.popitem(last=False)


def _version(item: Object) -> tuple[str, str]:
    return item["metadata"]["uid"], item["metadata"]["resourceVersion"]


def _digest(configmap: Object) -> str:
    """Of a training bundle, the digest of its files: it names the bundle, and two zip libraries compress alike files differently."""
    binary = configmap.get("binaryData") or {}
    if list(binary) == [ENTRY_FILE] and not configmap.get("data"):
        return bundle_digest(binary[ENTRY_FILE]) or content_digest(configmap)
    return content_digest(configmap)
