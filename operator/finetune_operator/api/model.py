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
            run_only=True,  # a default for the runs that have an oci:// model
        ),
    )

    uri: Annotated[str, text(1024)] | None = Field(
        None,
        description="Hugging Face Hub ID (owner/name or hf://owner/name) or local directory (local mode only) of the model.",
    )
    revision: Annotated[str, text(128, REVISION)] | None = Field(
        None, description="Branch, tag or commit of a Hub model. Default: main."
    )
    secret_ref: SecretKeyRef | None = Field(
        None, description="Secret with HF_TOKEN, for private and gated models. Default: the Secret hf-token, if it exists."
    )
    pull_secret_ref: PullSecretRef | None = Field(
        None,
        description="Image pull secret for an oci:// model. Default: the Secret oci-pull-secret-model-download, if it exists.",
    )
    trust_remote_code: bool | None = Field(
        None, description="Whether to run Python code that is part of the model. Enable it only for models that you trust."
    )
