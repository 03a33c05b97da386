"""``spec.dataset``: where the chat data comes from and how it is checked, thinned and split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finetune_contract.uris import WEB

from .references import CertificateRef, SecretKeyRef
from .section import REVISION, Fraction, Rule, Section, text, trimmed
from .uris import uri_rules


class DatasetFields(Section):
    """Names of the columns, where they are not the usual ones."""

    messages: Annotated[str, text(64)] | None = Field(
        None, description="Column with the list of chat messages. Default: messages."
    )
    instruction: Annotated[str, text(64)] | None = Field(None, description="Alpaca data: the instruction. Default: instruction.")
    input: Annotated[str, text(64)] | None = Field(None, description="Alpaca data: the optional context. Default: input.")
    output: Annotated[str, text(64)] | None = Field(None, description="Alpaca data: the answer. Default: output.")
    system: Annotated[str, text(64)] | None = Field(None, description="Alpaca data: a system message. Default: system.")


class BadRows(Section):
    """What happens to rows that cannot be trained on."""

    policy: Literal["Fail", "Drop"] | None = Field(
        None,
        description="Whether a row that is no chat conversation, or that the model's chat template rejects, fails the run or is left"
        " out. Default: Fail.",
    )
    share: Fraction | None = Field(
        None,
        description="Largest share of the rows that may be left out, 0 to 1: bad ones (policy Drop), those with more tokens than"
        " training.maxSeqLen, and those without a token to learn. More fails the run before training. Default: 0.1.",
    )


class Dataset(Section):
    """The data to train on and to measure with: chat rows, a list of messages each."""

    RULES = (
        *uri_rules("dataset", "uri"),
        *uri_rules("dataset", "evalUri"),
        Rule(
            "!has(self.evalUri) || !has(self.trainSplit) || self.trainSplit == 1.0",
            "with dataset.evalUri every row of dataset.uri is trained on: remove trainSplit or set it to 1",
            field=".trainSplit",
        ),
        Rule(
            "!has(self.splitBy) || self.splitBy == 'random' || has(self.splitField)",
            "dataset.splitBy stratified and grouped need dataset.splitField, the column to split by",
            field=".splitBy",
        ),
        *(
            Rule(
                f"!has(self.{field}) || self.uri.startsWith('hf://') || !self.uri.matches('^(/|[.]/|[.][.]/|~/|[a-z0-9]+://)')",
                f"dataset.{field} is for hub data sets only; remove it",
                field=f".{field}",
            )
            for field in ("split", "revision")
        ),
    )

    uri: Annotated[str, text(1024)] = Field(
        description="Where the rows are: hf://<id>[:<config>] or a bare hub id, s3://, http(s)://, pvc://<claim>/<path>, or a"
        " local path (local mode only)."
    )
    eval_uri: Annotated[str, text(1024)] | None = Field(
        None, description="Where the held-out rows are. Default: a part of uri is held out (trainSplit)."
    )
    split: Annotated[str, trimmed(128)] | None = Field(
        None, description="Split of a hub data set. Default: train, else the first of train_sft, train_gen, training."
    )
    revision: Annotated[str, text(128, REVISION)] | None = Field(
        None, description="Branch, tag or commit of a hub data set. Default: main."
    )
    format: Literal["auto", "messages", "conversations", "alpaca", "tokenised"] | None = Field(
        None,
        description="Form of the rows. auto and messages are the same: each row has a list of chat messages in the column messages."
        " Default: auto.",
    )
    fields: DatasetFields | None = Field(None, description="Names of the columns.")
    subset: Annotated[int, Field(ge=0)] | None = Field(None, description="Use that many rows only; 0 means all.")
    subset_mode: Literal["random", "first"] | None = Field(
        None, description="Which rows a subset takes. random draws the same rows as the OpenShift AI pipelines."
    )
    train_split: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Share of the rows to train on, above 0 and at most 1; the rest is held out. 1 holds nothing out."
    )
    split_by: Literal["random", "stratified", "grouped"] | None = Field(
        None,
        description="How rows are held out: at random, with equal shares of each value of splitField, or whole groups of it.",
    )
    split_field: Annotated[str, text(64)] | None = Field(None, description="Column for splitBy stratified and grouped.")
    bad_rows: BadRows | None = Field(None, description="What happens to rows that cannot be trained on.")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(None, description="Seed of subset and split.")
    sha256: Annotated[str, text(64, r"^[0-9a-f]{64}$", "64 lower-case hexadecimal digits")] | None = Field(
        None, description="SHA-256 that the file behind uri must have, in lower-case hex. Default: not checked."
    )
    endpoint: Annotated[str, text(512, rf"^{WEB}$", "https://<host>")] | None = Field(
        None, description="Address of an S3 service that is not AWS."
    )
    region: Annotated[str, text(64, r"^[A-Za-z0-9][-A-Za-z0-9]*$", "a name such as eu-west-1")] | None = Field(
        None, description="Region of the S3 bucket."
    )
    ca_ref: CertificateRef | None = Field(None, description="CA bundle for https:// and s3://.")
    secret_ref: SecretKeyRef | None = Field(
        None,
        description="Secret with HF_TOKEN, or AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN."
        " Default: the Secrets hf-token and s3-secret, where they exist.",
    )
