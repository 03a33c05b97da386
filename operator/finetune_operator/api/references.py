"""References to other objects in the namespace of the run, by name and key."""

from __future__ import annotations

from pydantic import Field

from .section import DataKey, ObjectName, Section


class SecretKeyRef(Section):
    """Reference to a Secret in the namespace of the run. Pods get its values as environment variables; they are not copied anywhere else."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: DataKey | None = Field(None, description="Key in the Secret. Default: the standard keys of the section.")


class ConfigMapRef(Section):
    """Reference to a ConfigMap in the namespace of the run."""

    name: ObjectName = Field(description="Name of the ConfigMap.")


class CertificateRef(Section):
    """Reference to a ConfigMap with a CA bundle in PEM format."""

    name: ObjectName = Field(description="Name of the ConfigMap.")
    key: DataKey | None = Field(None, description="Key of the CA bundle in the ConfigMap. Default: ca.crt.")


class PullSecretRef(Section):
    """Reference to an image pull secret in the namespace of the run."""

    name: ObjectName = Field(description="Name of the Secret, of type kubernetes.io/dockerconfigjson.")
