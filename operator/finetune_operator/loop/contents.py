"""Digests of the contents of ConfigMaps. Each version of a ConfigMap is read once."""

from __future__ import annotations

from collections import OrderedDict

from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.core.manifests.children import content_digest
from finetune_operator.core.manifests.pod import BUNDLE_FILE
from finetune_operator.training_bundle import bundle_digest

from .cluster import Cluster, Object

_LIMIT = 20_000
"""Digests in the cache: about 4 MB."""


class ConfigMapContents:
    """Cache of the digests of ConfigMaps by uid and resource version. ConfigMaps are large, so passes read only their metadata."""

    def __init__(self) -> None:
        self._digests: OrderedDict[tuple[str, str], str] = OrderedDict()

    async def read(self, cluster: Cluster, namespace: str, name: str) -> tuple[Object, str]:
        """Return the metadata of a ConfigMap and the digest of its contents.

        Raises:
            NotFound: it does not exist.
            ApiError: a call failed.
        """
        item = await cluster.get_metadata(CONFIGMAP, namespace, name)
        if _version(item) not in self._digests:
            item = await cluster.get(CONFIGMAP, namespace, name)
            self.remember(item)
        return {"metadata": item["metadata"]}, self._digests[_version(item)]

    def remember(self, configmap: Object) -> None:
        """Add the digest of a ConfigMap that was read, or that the API server returned when it was created."""
        self._digests[_version(configmap)] = _digest(configmap)
        self._digests.move_to_end(_version(configmap))
        if len(self._digests) > _LIMIT:
            self._digests.popitem(last=False)


def _version(item: Object) -> tuple[str, str]:
    return item["metadata"]["uid"], item["metadata"]["resourceVersion"]


def _digest(configmap: Object) -> str:
    """Return the digest of a ConfigMap; for a training bundle that of its files, since zip libraries compress equal files differently.

    It is empty for a ConfigMap that is not immutable, whose content may be another one when a pod mounts it.
    """
    if not configmap.get("immutable"):
        return ""
    binary = configmap.get("binaryData") or {}
    if list(binary) == [BUNDLE_FILE] and not configmap.get("data"):
        return bundle_digest(binary[BUNDLE_FILE]) or content_digest(configmap)
    return content_digest(configmap)
