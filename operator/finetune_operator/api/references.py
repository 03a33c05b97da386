"""References to other objects of the run's namespace, by name and key."""

from __future__ import annotations

from pydantic import Field

from .section import DataKey, ObjectName, Section


class SecretKeyRef(Section):
    """A Secret of the run's namespace. Its content is handed to the stage as environment variables and is never copied."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: DataKey | None = Field(None, description="Key in the Secret. Without it the standard keys of the section are taken.")


class ConfigMapRef(Section):
    """A ConfigMap of the run's namespace."""

    name: ObjectName = Field(description="Name of the ConfigMap.")


class CertificateRef(Section):
    """A ConfigMap with a CA bundle in PEM form."""

    name: ObjectName = Field(description="Name of the ConfigMap.")
    key: DataKey | None = Field(None, description="Key of the bundle. Default: ca.crt.")


class PullSecretRef(Section):
    """A Secret with registry credentials."""

    name: ObjectName = Field(description="Name of the Secret (kubernetes.io/dockerconfigjson).")
