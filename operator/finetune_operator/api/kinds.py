"""Kinds of objects that the operator reads or writes, with their API paths."""

from __future__ import annotations

from dataclasses import dataclass

from . import finetunerun


@dataclass(frozen=True)
class Kind:
    """One served resource."""

    group: str
    version: str
    plural: str
    name: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Return the ``apiVersion`` of the kind: ``batch/v1``, or ``v1`` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Return the URL path of the collection, of one object, or of its subresource."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/" + "/".join(parts)

    def __str__(self) -> str:
        return self.name


FINETUNERUN = Kind(finetunerun.GROUP, finetunerun.VERSION, finetunerun.PLURAL, finetunerun.KIND)
JOB = Kind("batch", "v1", "jobs", "Job")
TRAINJOB = Kind("trainer.kubeflow.org", "v1alpha1", "trainjobs", "TrainJob")
CLUSTER_TRAINING_RUNTIME = Kind(
    "trainer.kubeflow.org", "v1alpha1", "clustertrainingruntimes", "ClusterTrainingRuntime", namespaced=False
)
JOBSET = Kind("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet")
POD = Kind("", "v1", "pods", "Pod")
CLAIM = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
CONFIGMAP = Kind("", "v1", "configmaps", "ConfigMap")
EVENT = Kind("", "v1", "events", "Event")
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")

KINDS: tuple[Kind, ...] = (
    FINETUNERUN,
    JOB,
    TRAINJOB,
    CLUSTER_TRAINING_RUNTIME,
    JOBSET,
    POD,
    CLAIM,
    CONFIGMAP,
    EVENT,
    SERVICE_ACCOUNT,
    LEASE,
)
_BY_TYPE = {(kind.api_version, kind.name): kind for kind in KINDS}


def kind_of(manifest: dict[str, object]) -> Kind:
    """Return the kind of a manifest, by its ``apiVersion`` and ``kind``.

    Raises:
        KeyError: the operator does not handle this kind.
    """
    return _BY_TYPE[(str(manifest.get("apiVersion")), str(manifest.get("kind")))]
