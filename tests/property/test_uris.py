"""Admission and the parser of URIs agree: the CRD's rules accept a URI exactly if the stages can parse it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from finetune_contract.uris import FORMS, UriError, UriKind, parse_uri
from finetune_operator.api.crd import crd
from finetune_operator.validation import Validator

VALIDATOR = Validator(crd())
PIECES = (
    " ", "/", "./", "../", "~/", "~", "file://", "file:///", "hf://", "http://", "https://", "s3://", "pvc://", "oci://", "ftp://", "://", ":",
    "@", "[", "]", "[::1]", "?", "#", "%", "%20", "%00", "%7f", "%zz", "%ff", "%c3", "%bc", "%e2%82", "%ed%a0%80", "-", ".", "--", "..", "_", "a", "B", "7", "0", "65535", "65536", "\u00fc", "\u00a0",
    "?sig=", "&X-Amz-Signature=a", "?keys=", "user:pw@", "@sha256:", "\0", "\n", "\x7f", "\\", "*", "org", "x.jsonl", ".csv", ".gz", ".safetensors", "example.com", "bucket", "\u2100", "\u2028",
)  # fmt: skip
URIS = st.lists(st.sampled_from(PIECES) | st.characters(codec="utf-8"), min_size=1, max_size=8).map("".join) | st.one_of(
    [st.from_regex(f"^({form})$", fullmatch=True) for forms in FORMS.values() for form in forms]
).filter(lambda uri: len(uri) <= 1024)


def admitted(kind: UriKind, uri: str) -> bool:
    spec: dict[str, Any] = {"dataset": {"uri": "org/data"}}
    spec[kind] = {"uri": uri}
    manifest = {
        "apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": {"name": "demo", "namespace": "team"}, "spec": spec,
    }  # fmt: skip
    return VALIDATOR.create(manifest) == []


def parses(kind: UriKind, uri: str) -> bool:
    try:
        parse_uri(uri, kind)
    except UriError:
        return False
    return True


@pytest.mark.parametrize("kind", ["dataset", "model"])
@given(uri=URIS)
@settings(max_examples=400, deadline=None)
@example(uri=" /data/rows")
@example(uri="/data/rows ")
@example(uri="/data/http://x")
@example(uri="file:///a%00")
@example(uri="file:///%ff")
@example(uri="file:///%c3%bc")
@example(uri="rows.jsonl")
@example(uri="http://a:65536")
@example(uri="https://user:pw@example.com/x")
@example(uri="https://example.com/x?a=b&sig=c")
@example(uri="/data/x?sig=c")
@example(uri="s3://bucket/x?token=c")
def test_a_uri_is_admitted_exactly_if_it_can_be_parsed(kind: UriKind, uri: str) -> None:
    assert admitted(kind, uri) == parses(kind, uri)
