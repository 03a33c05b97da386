"""``spec.registry``, ``spec.publish`` and ``spec.storage``: destinations of the model, and the workspace volume."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .references import CertificateRef, SecretKeyRef
from .section import ObjectName, Rule, Section, Size, text, trimmed
from .uris import PUBLISHED, credential_rules


class Registry(Section):
    """Entry in the model registry."""

    RULES = credential_rules("registry", "address", "name a Secret with REGISTRY_TOKEN in registry.secretRef")[
        1:
    ]  # its form has no login

    kind: Literal["ModelRegistry", "MLflow"] | None = Field(
        None,
        description="Type of the registry, Kubeflow Model Registry or MLflow. Default: ModelRegistry if address is "
        "set. Without an address, a local run uses an MLflow store in the workspace and a run on a "
        "cluster is not registered.",
    )
    address: (
        Annotated[
            str,
            text(
                512,
                r"^(https?://)?[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]+)?(/[^ ]*)?$",
                "a host name or http(s)://<host>",
            ),
        ]
        | None
    ) = Field(None, description="Host name or URL of the registry. The scheme defaults to http.")
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="Port of the registry, if address has none. Default: 8080, or 443 if address begins with https://."
    )
    secret_ref: SecretKeyRef | None = Field(
        None, description="Secret with REGISTRY_TOKEN. Default: the Secret registry-token, if it exists."
    )
    ca_ref: CertificateRef | None = Field(
        None, description="ConfigMap with the CA bundle of the registry. Default: the CAs of the stage image."
    )
    name: (
        Annotated[
            str, text(128, r"^[A-Za-z0-9]([-A-Za-z0-9_. ]*[A-Za-z0-9])?$", "a name of letters, digits, spaces, '-', '_' and '.'")
        ]
        | None
    ) = Field(None, description="Name of the registered model.")
    version: Annotated[str, text(64, r"^[A-Za-z0-9]([-A-Za-z0-9_.+]*[A-Za-z0-9])?$", "a version such as 1.0.0")] | None = Field(
        None, description="Version of the registered model."
    )
    on_existing: Literal["NewVersion", "Fail", "Update"] | None = Field(
        None,
        description="Handling of a version that exists. NewVersion uses the next free patch version. Fail fails the "
        "run, before training if possible. Update updates the entry.",
    )
    author: Annotated[str, trimmed(128)] | None = Field(None, description="Author of the version.")
    description: Annotated[str, text(2048)] | None = Field(
        None, description="Description of the version. Default: a text that names the run."
    )
    format: Annotated[str, trimmed(64)] | None = Field(None, description="Format of the model.")
    format_version: Annotated[str, trimmed(64)] | None = Field(None, description="Version of the format.")
    alias: Annotated[str, text(64, r"^[A-Za-z][-A-Za-z0-9_]*$", "a name of letters, digits, '-' and '_'")] | None = Field(
        None, description="Alias that is moved to the new version. Default: none."
    )


class Publish(Section):
    """Copy of the model outside the workspace. Without it the model stays on its volume and is registered with a pvc:// URI."""

    RULES = credential_rules("publish", "uri", "name a Secret in publish.secretRef")

    uri: Annotated[str, text(1024, PUBLISHED, "s3://<bucket>/<prefix> or oci://<image>")] = Field(
        description="Destination in the form s3://<bucket>/<prefix> or oci://<image>."
    )
    secret_ref: SecretKeyRef | None = Field(None, description="Secret with the credentials to write to the destination.")
    serving: Literal["none", "manifest", "apply"] | None = Field(
        None,
        description="Whether a KServe InferenceService for the model is written (manifest) or also applied (apply). "
        "Default: none.",
    )


class Storage(Section):
    """Workspace volume of the run."""

    RULES = (
        Rule(
            "!has(self.claimName) || (!has(self.size) && !has(self.storageClassName) && !has(self.accessModes))",
            "storage.claimName names an existing claim: remove size, storageClassName and accessModes",
            field=".claimName",
        ),
        Rule(
            "!has(oldSelf.size) || !isQuantity(string(oldSelf.size)) || (has(self.size) && (!isQuantity(string(self.size))"
            " || quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0))",
            "storage.size may only grow",
            field=".size",
        ),
        Rule(
            "!has(self.accessModes) || self.accessModes.size() == 1 || !('ReadWriteOncePod' in self.accessModes)",
            "storage.accessModes: ReadWriteOncePod excludes every other mode; name it alone, or remove it",
            field=".accessModes",
        ),
    )

    claim_name: ObjectName | None = Field(
        None,
        description="Name of an existing PersistentVolumeClaim. Runs that use the same claim share its cache. "
        "Default: the operator creates <run>-workspace.",
    )
    size: Size | None = Field(
        None, description="Size of the claim that the operator creates, as a quantity in bytes such as 100Gi. It can only grow."
    )
    storage_class_name: ObjectName | None = Field(
        None,
        description="StorageClass of the claim. Default: the default of the namespace or the operator, or else the "
        "default StorageClass of the cluster.",
    )
    access_modes: (
        Annotated[list[Literal["ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]], Field(min_length=1, max_length=3)] | None
    ) = Field(None, description="Access modes of the claim. ReadWriteOnce works only if all pods run on one node.")
