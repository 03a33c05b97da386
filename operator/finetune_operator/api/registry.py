"""``spec.registry``, ``spec.publish`` and ``spec.storage``: where the model goes, and what it lies on meanwhile."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .references import CertificateRef, SecretKeyRef
from .section import ObjectName, Rule, Section, Size, text, trimmed
from .uris import PUBLISHED


class Registry(Section):
    """The entry in the model registry."""

    kind: Literal["ModelRegistry", "MLflow"] | None = Field(
        None,
        description="Kubeflow Model Registry or MLflow. Default: ModelRegistry with an address; without one, MLflow's store in the"
        " workspace in local mode and no registration on a cluster.",
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
    ) = Field(None, description="Host name or URL; without a scheme http:// is meant.")
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        None, description="Port of the registry, where the address has none; 443 for https://."
    )
    secret_ref: SecretKeyRef | None = Field(
        None, description="Secret with REGISTRY_TOKEN. Default: the Secret registry-token, where it exists."
    )
    ca_ref: CertificateRef | None = Field(None, description="CA bundle of the registry.")
    name: (
        Annotated[
            str, text(128, r"^[A-Za-z0-9]([-A-Za-z0-9_. ]*[A-Za-z0-9])?$", "a name of letters, digits, spaces, '-', '_' and '.'")
        ]
        | None
    ) = Field(None, description="Name of the registered model.")
    version: Annotated[str, text(64, r"^[A-Za-z0-9]([-A-Za-z0-9_.+]*[A-Za-z0-9])?$", "a version such as 1.0.0")] | None = Field(
        None, description="Version of the model."
    )
    on_existing: Literal["NewVersion", "Fail", "Update"] | None = Field(
        None,
        description="Where the version exists: take the next free patch version, fail (asked before training starts), or update"
        " the entry.",
    )
    author: Annotated[str, trimmed(128)] | None = Field(None, description="Author of the version.")
    description: Annotated[str, text(2048)] | None = Field(
        None, description="Description of the version. Default: one that names the run."
    )
    format: Annotated[str, trimmed(64)] | None = Field(None, description="Format of the model.")
    format_version: Annotated[str, trimmed(64)] | None = Field(None, description="Version of the format.")
    alias: Annotated[str, text(64, r"^[A-Za-z][-A-Za-z0-9_]*$", "a name of letters, digits, '-' and '_'")] | None = Field(
        None, description="Alias that moves to the new version."
    )


class Publish(Section):
    """A copy of the model outside the workspace. Without it the model stays on its volume and is registered as pvc://."""

    uri: Annotated[str, text(1024, PUBLISHED, "s3://<bucket>/<prefix> or oci://<image>")] = Field(
        description="s3://<bucket>/<prefix> or oci://<image>."
    )
    secret_ref: SecretKeyRef | None = Field(None, description="Secret with the credentials to write there.")
    serving: Literal["none", "manifest", "apply"] | None = Field(
        None, description="Write a KServe InferenceService for the model, or apply it too. Default: none."
    )


class Storage(Section):
    """The workspace volume."""

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

    claim_name: ObjectName | None = Field(None, description="An existing claim. Runs that share one share its cache.")
    size: Size | None = Field(None, description="Size of the claim that is made, in bytes.")
    storage_class_name: ObjectName | None = Field(
        None,
        description="Class of the claim. Default: the namespace's or the operator's setting, else the cluster's default class.",
    )
    access_modes: (
        Annotated[list[Literal["ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]], Field(min_length=1, max_length=3)] | None
    ) = Field(None, description="Access modes of the claim. ReadWriteOnce works where all pods run on one node.")
