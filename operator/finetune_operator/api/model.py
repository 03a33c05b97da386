"""``spec.model``: the base model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from finetune_contract.uris import WEB

from .references import CertificateRef, PullSecretRef, SecretKeyRef
from .section import REGION, REVISION, Rule, Section, text
from .uris import credential_rules, uri_rules


class Model(Section):
    """The model that training starts from."""

    RULES = (
        *uri_rules("model", "uri"),
        *credential_rules("model", "endpoint", "name a Secret in model.secretRef"),
        Rule(
            "!has(self.revision) || !has(self.uri) || !self.uri.contains('://') || self.uri.startsWith('hf://')",
            "model.revision is for hub models only; remove it",
            field=".revision",
        ),
        Rule(
            "!has(self.pullSecretRef) || (has(self.uri) && self.uri.startsWith('oci://'))",
            "model.pullSecretRef is for oci:// models only; remove it",
            field=".pullSecretRef",
            run_only=True,  # a default for the runs that have an oci:// model
        ),
        *(
            Rule(
                f"!has(self.{field}) || (has(self.uri) && self.uri.startsWith('s3://'))",
                f"model.{field} is for s3:// models only; remove it",
                field=f".{field}",
                run_only=True,  # a default for the runs that have an s3:// model
            )
            for field in ("endpoint", "region")
        ),
        Rule(
            "!has(self.secretRef) || !has(self.secretRef.key) || !has(self.uri) || !self.uri.startsWith('s3://')",
            "model.secretRef.key names one key, and s3:// needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; remove key",
            field=".secretRef.key",
        ),
    )

    uri: Annotated[str, text(1024)] | None = Field(
        None,
        description="Hugging Face Hub ID (owner/name or hf://owner/name), oci:// image, s3:// prefix, pvc:// directory, or local directory (local "
        "mode only) of the model. An image has the files below /models, or is an artifact with one file per layer.",
    )
    revision: Annotated[str, text(128, REVISION)] | None = Field(
        None, description="Branch, tag or commit of a Hub model. Default: main."
    )
    endpoint: Annotated[str, text(512, rf"^{WEB}$", "https://<host>")] | None = Field(
        None,
        description="URL of the S3 service, for s3:// models. Default: the key AWS_S3_ENDPOINT of the Secret, or else AWS.",
    )
    region: Annotated[str, text(64, REGION, "a name such as eu-west-1")] | None = Field(
        None,
        description="Region of the S3 bucket, for s3:// models. Default: the key AWS_DEFAULT_REGION of the Secret, or else us-east-1.",
    )
    ca_ref: CertificateRef | None = Field(
        None, description="ConfigMap with the CA bundle of the server of oci:// and s3:// models."
    )
    secret_ref: SecretKeyRef | None = Field(
        None,
        description="Secret with HF_TOKEN for private and gated models of the Hub, or AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
        "AWS_SESSION_TOKEN for s3://. A key in this reference is HF_TOKEN. Default: the Secrets hf-token and s3-secret, if they exist.",
    )
    pull_secret_ref: PullSecretRef | None = Field(
        None,
        description="Image pull secret for an oci:// model. Default: the Secret oci-pull-secret-model-download, if it exists.",
    )
    trust_remote_code: bool | None = Field(
        None, description="Whether to run Python code that is part of the model. Enable it only for models that you trust."
    )
