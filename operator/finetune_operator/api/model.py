"""``spec.model``: the base model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .references import PullSecretRef, SecretKeyRef
from .section import REVISION, Rule, Section, text
from .uris import uri_rules


class Model(Section):
    """The model that training starts from."""

    RULES = (
        *uri_rules("model", "uri"),
        Rule(
            "!has(self.revision) || !has(self.uri) || !self.uri.contains('://') || self.uri.startsWith('hf://')",
            "model.revision is for hub models only; remove it",
            field=".revision",
        ),
        Rule(
            "!has(self.pullSecretRef) || (has(self.uri) && self.uri.startsWith('oci://'))",
            "model.pullSecretRef is for oci:// models only; remove it",
            field=".pullSecretRef",
        ),
    )

    uri: Annotated[str, text(1024)] | None = Field(
        None,
        description="hf://<id> or a bare hub id, oci://<image>, s3://<bucket>/<prefix>, pvc://<claim>/<path>, or a local"
        " directory (local mode only).",
    )
    revision: Annotated[str, text(128, REVISION)] | None = Field(
        None, description="Branch, tag or commit of a hub model. Default: main."
    )
    secret_ref: SecretKeyRef | None = Field(
        None, description="Secret with HF_TOKEN or the AWS keys. Default: the Secrets hf-token and s3-secret, where they exist."
    )
    pull_secret_ref: PullSecretRef | None = Field(
        None, description="Secret for oci://. Default: the Secret oci-pull-secret-model-download, where it exists."
    )
    trust_remote_code: bool | None = Field(None, description="Run Python code that the model brings. Only for models you trust.")
