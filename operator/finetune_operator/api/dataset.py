"""``spec.dataset``: location, validation, subset and split of the chat data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from finetune_contract.uris import WEB

from .references import CertificateRef, SecretKeyRef
from .section import REVISION, Fraction, Rule, Section, text, trimmed
from .uris import uri_rules


class DatasetFields(Section):
    """Names of the columns that hold the data."""

    messages: Annotated[str, text(64)] | None = Field(
        None, description="Name of the column with the list of chat messages. Default: messages."
    )
    instruction: Annotated[str, text(64)] | None = Field(
        None, description="Name of the column with the instruction, for format alpaca. Default: instruction."
    )
    input: Annotated[str, text(64)] | None = Field(
        None, description="Name of the column with the optional context, for format alpaca. Default: input."
    )
    output: Annotated[str, text(64)] | None = Field(
        None, description="Name of the column with the answer, for format alpaca. Default: output."
    )
    system: Annotated[str, text(64)] | None = Field(
        None, description="Name of the column with the system message, for format alpaca. Default: system."
    )


class BadRows(Section):
    """Handling of rows that cannot be trained on."""

    policy: Literal["Fail", "Drop"] | None = Field(
        None,
        description="Handling of a row that is not a chat conversation or that the chat template of the model "
        "rejects. Fail fails the run. Drop leaves the row out.",
    )
    share: Fraction | None = Field(
        None,
        description="Largest share of rows that may be left out; if more are left out, the run fails before training. "
        "Counted are bad rows (with policy Drop), rows with more tokens than training.maxSeqLen, and rows "
        "without a token to learn. Default: 0.1.",
    )


class Dataset(Section):
    """Chat data to train on and to evaluate on. Each row is an object with a list of messages."""

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
        description="Hugging Face Hub ID (owner/name or hf://owner/name, followed by :configuration if the dataset "
        "has several), http(s):// URL, or local path (local mode only) of the rows."
    )
    eval_uri: Annotated[str, text(1024)] | None = Field(
        None,
        description="Location of the held-out rows, in the same forms as uri. Default: a share of the rows of uri is "
        "held out (trainSplit).",
    )
    split: Annotated[str, trimmed(128)] | None = Field(
        None,
        description="Split of a Hub dataset. Default: train, or else the first of train_sft, train_gen and training that exists.",
    )
    revision: Annotated[str, text(128, REVISION)] | None = Field(
        None, description="Branch, tag or commit of a Hub dataset. Default: main."
    )
    format: Literal["auto", "messages", "conversations", "alpaca", "tokenised"] | None = Field(
        None,
        description="Format of the rows. auto and messages are the same, a list of chat messages in the column messages.",
    )
    fields: DatasetFields | None = Field(None, description="Names of the columns.")
    subset: Annotated[int, Field(ge=0)] | None = Field(None, description="Number of rows to use; 0 uses all rows.")
    subset_mode: Literal["random", "first"] | None = Field(
        None,
        description="Which rows a subset contains. random draws them with seed, and draws the same rows as the "
        "OpenShift AI pipelines. first selects the first rows.",
    )
    train_split: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Share of the rows to train on; the others are held out for evaluation. 1 holds no rows out."
    )
    split_by: Literal["random", "stratified", "grouped"] | None = Field(
        None,
        description="How held-out rows are chosen. random draws them with seed, and draws the same rows as the OpenShift AI "
        "pipelines. stratified draws equal shares of each value of splitField, with seed. grouped draws values of splitField with "
        "seed and keeps all rows with the same value together; at most the share is held out, unless every value has more rows.",
    )
    split_field: Annotated[str, text(64)] | None = Field(
        None,
        description="Name of the column for splitBy stratified and grouped. Every row needs a string, number or boolean in it.",
    )
    bad_rows: BadRows | None = Field(None, description="Handling of rows that cannot be trained on.")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="Seed of the random choice of the subset and of the held-out rows."
    )
    sha256: Annotated[str, text(64, r"^[0-9a-f]{64}$", "64 lower-case hexadecimal digits")] | None = Field(
        None,
        description="Expected SHA-256 of the file at uri, as 64 lower-case hexadecimal digits. If it differs, the run "
        "fails. Default: not checked.",
    )
    endpoint: Annotated[str, text(512, rf"^{WEB}$", "https://<host>")] | None = Field(
        None, description="URL of an S3 service other than AWS."
    )
    region: Annotated[str, text(64, r"^[A-Za-z0-9][-A-Za-z0-9]*$", "a name such as eu-west-1")] | None = Field(
        None, description="Region of the S3 bucket."
    )
    ca_ref: CertificateRef | None = Field(None, description="ConfigMap with the CA bundle for https:// and s3://.")
    secret_ref: SecretKeyRef | None = Field(
        None,
        description="Secret with HF_TOKEN, for private and gated datasets. Default: the Secret hf-token, if it exists.",
    )
