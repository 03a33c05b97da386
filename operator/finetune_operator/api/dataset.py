"""``spec.dataset``: location, validation, subset and split of the chat data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, get_args

from pydantic import Field

from finetune_contract.codec import camel
from finetune_contract.row_formats import OPTIONAL, REQUIRED, RowFields, RowFormat
from finetune_contract.uris import WEB

from .references import CertificateRef, SecretKeyRef
from .section import REGION, REVISION, Fraction, Rule, Section, text, trimmed
from .uris import credential_rules, uri_rules

ColumnName = Annotated[str, text(64)]
_COMMON = ("system", "tools")
_DISTINCT: tuple[RowFormat, ...] = ("messages", "alpaca", "prompt-completion", "text", "tokenised")
"""Formats that have no field in common except :data:`_COMMON`."""


def _read_by(name: RowFormat) -> list[str]:
    """Return the fields that a format reads, as the resource names them."""
    return [camel(field) for field in (*REQUIRED[name], *OPTIONAL[name])]


def _rule_of_format(name: RowFormat) -> Rule:
    """Return the rule that ``fields`` has only fields of a format."""
    known = _read_by(name)
    others = [other for other in map(camel, RowFields.__dataclass_fields__) if other not in known]
    unset = " && ".join(f"!has(self.fields.{other})" for other in others)
    return Rule(
        f"!has(self.format) || self.format != '{name}' || !has(self.fields) || ({unset})",
        f"format {name} reads {', '.join(known)} only; remove the other fields",
        field=".fields",
    )


def _sets_any(fields: Iterable[str]) -> str:
    return f"({' || '.join(f'has(self.{field})' for field in fields)})"


class DatasetFields(Section):
    """Names of the columns of a row, and of the keys of its messages."""

    RULES = (
        Rule(
            f"[{', '.join(_sets_any(field for field in _read_by(name) if field not in _COMMON) for name in _DISTINCT)}].filter(used, used).size() <= 1"
            f" && !({_sets_any(_COMMON)} && {_sets_any((*_read_by('text'), *_read_by('tokenised')))})",
            "no format reads all of these fields; keep those of one format",
        ),
    )

    messages: ColumnName | None = Field(
        None,
        description="Name of the column with the list of messages, for formats messages and conversations. Default: messages, or conversations.",
    )
    role: ColumnName | None = Field(
        None,
        description="Name of the key of a message with its role, for formats messages and conversations. Default: role, or from.",
    )
    content: ColumnName | None = Field(
        None,
        description="Name of the key of a message with its content, for formats messages and conversations. Default: content, or value.",
    )
    instruction: ColumnName | None = Field(
        None, description="Name of the column with the instruction, for format alpaca. Default: instruction."
    )
    input: ColumnName | None = Field(
        None, description="Name of the column with the optional context, for format alpaca. Default: input."
    )
    output: ColumnName | None = Field(None, description="Name of the column with the answer, for format alpaca. Default: output.")
    history: ColumnName | None = Field(
        None,
        description="Name of the column with earlier rounds, a list of pairs of a question and its answer, for format alpaca. Default: history.",
    )
    prompt: ColumnName | None = Field(
        None, description="Name of the column with the prompt, for format prompt-completion. Default: prompt."
    )
    completion: ColumnName | None = Field(
        None, description="Name of the column with the completion, for format prompt-completion. Default: completion."
    )
    system: ColumnName | None = Field(
        None, description="Name of the column with the system message, for all formats of conversations. Default: system."
    )
    tools: ColumnName | None = Field(
        None, description="Name of the column with the tools, for all formats of conversations. Default: tools."
    )
    text: ColumnName | None = Field(None, description="Name of the column with the text, for format text. Default: text.")
    input_ids: ColumnName | None = Field(
        None, description="Name of the column with the tokens, for format tokenised. Default: input_ids."
    )
    labels: ColumnName | None = Field(
        None, description="Name of the column with the labels, for format tokenised. Default: labels."
    )


class BadRows(Section):
    """Handling of rows that cannot be trained on."""

    policy: Literal["Fail", "Drop"] | None = Field(
        None,
        description="Handling of a row that is broken, is in another format, or that the chat template of the model "
        "rejects. Fail fails the run. Drop leaves the row out.",
    )
    share: Fraction | None = Field(
        None,
        description="Largest share of rows that may be left out; if more are left out, the run fails before training. "
        "Counted are bad rows (with policy Drop), rows with more tokens than training.maxSeqLen, and rows "
        "without a token to learn. Default: 0.1.",
    )


class Dataset(Section):
    """Data to train on and to evaluate on: conversations in one of several formats, documents, or tokens."""

    RULES = (
        *map(_rule_of_format, get_args(RowFormat)),
        *uri_rules("dataset", "uri"),
        *uri_rules("dataset", "evalUri"),
        *credential_rules("dataset", "endpoint", "name a Secret in dataset.secretRef"),
        Rule(
            "!has(self.evalUri) || !has(self.trainSplit) || self.trainSplit == 1.0",
            "with dataset.evalUri every row of dataset.uri is trained on: remove trainSplit or set it to 1",
            field=".trainSplit",
        ),
        Rule(
            "!has(self.splitBy) || self.splitBy == 'random' || has(self.splitField)",
            "dataset.splitBy stratified and grouped need dataset.splitField, the column to split by",
            field=".splitBy",
            run_only=True,  # the column depends on the data of the run
        ),
        *(
            Rule(
                f"!has(self.{field}) || self.uri.startsWith('hf://') || !self.uri.matches('^(/|[.]/|[.][.]/|~/|[a-z0-9]+://)')",
                f"dataset.{field} is for hub data sets only; remove it",
                field=f".{field}",
            )
            for field in ("split", "revision")
        ),
        *(
            Rule(
                f"!has(self.{field}) || self.uri.startsWith('s3://') || (has(self.evalUri) && self.evalUri.startsWith('s3://'))",
                f"dataset.{field} is for s3:// locations only; remove it",
                field=f".{field}",
                run_only=True,  # a default for the runs whose data is in S3
            )
            for field in ("endpoint", "region")
        ),
        Rule(
            "!has(self.secretRef) || !has(self.secretRef.key) || !(self.uri.startsWith('s3://') ||"
            " (has(self.evalUri) && self.evalUri.startsWith('s3://')))",
            "dataset.secretRef.key names one key, and s3:// needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; remove key",
            field=".secretRef.key",
        ),
    )

    uri: Annotated[str, text(1024)] = Field(
        description="Hugging Face Hub ID (owner/name or hf://owner/name, followed by :configuration if the dataset "
        "has several), http(s):// URL, s3:// or pvc:// location, or local path (local mode only) of the rows. A prefix of s3:// that "
        "ends with /, a directory, and a glob (*, ?, [...], **) are several files. Files are JSON, JSON Lines, CSV, TSV, Parquet or Arrow, "
        "compressed with gzip, bzip2, xz or Zstandard or not."
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
    format: Literal["auto", RowFormat] | None = Field(
        None,
        description="Format of the rows. auto recognizes it by the columns; all rows of a source must be in the same format. "
        "messages and conversations are lists of messages, conversations with the keys and role names of many data sets. "
        "alpaca is an instruction and its output. prompt-completion is a prompt and its completion. text is documents, "
        "trained on without a chat template. tokenised is tokens and labels.",
    )
    fields: DatasetFields | None = Field(None, description="Names of the columns, if they differ from the defaults.")
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
    near_duplicates: Literal["Ignore", "KeepTogether"] | None = Field(
        None,
        description="How near-duplicate rows are split. Ignore splits them like all rows. KeepTogether keeps all rows with nearly the same "
        "text on one side of the split, for splitBy random and grouped, so that held-out rows are not learned in another wording.",
    )
    sample_in_status: bool | None = Field(
        None,
        description="Whether status.sample shows the first training rows, at most 2 KiB, to everyone who may read the run or the pods of "
        "its namespace. If false, the rows are only on the volume of the run, in tokens/sample.json.",
    )
    bad_rows: BadRows | None = Field(None, description="Handling of rows that cannot be trained on.")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = Field(
        None, description="Seed of the random choice of the subset and of the held-out rows."
    )
    sha256: Annotated[str, text(64, r"^[0-9a-f]{64}$", "64 lower-case hexadecimal digits")] | None = Field(
        None,
        description="Expected SHA-256 of the one file at uri, as 64 lower-case hexadecimal digits. If it differs, the run "
        "fails. Default: not checked.",
    )
    endpoint: Annotated[str, text(512, rf"^{WEB}$", "https://<host>")] | None = Field(
        None,
        description="URL of the S3 service, for s3:// locations. Default: the key AWS_S3_ENDPOINT of the Secret, or else AWS.",
    )
    region: Annotated[str, text(64, REGION, "a name such as eu-west-1")] | None = Field(
        None,
        description="Region of the S3 bucket, for s3:// locations. Default: the key AWS_DEFAULT_REGION of the Secret, or else us-east-1.",
    )
    ca_ref: CertificateRef | None = Field(None, description="ConfigMap with the CA bundle for https:// and s3:// locations.")
    secret_ref: SecretKeyRef | None = Field(
        None,
        description="Secret with HF_TOKEN for private and gated datasets of the Hub, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
        "AWS_SESSION_TOKEN for s3://, or HTTP_AUTHORIZATION, the value of the Authorization header, for http(s)://. A key in this "
        "reference is HF_TOKEN or, for http(s)://, HTTP_AUTHORIZATION. Default: the Secrets hf-token and s3-secret, if they exist; no "
        "Authorization header.",
    )
