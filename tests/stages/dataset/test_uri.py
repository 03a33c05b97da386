"""URIs as the stages read them: local paths made absolute, errors as reasons, no secret in a message."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_contract.uris import ClaimPath, HubId, S3Location, WebAddress
from finetune_stages.sdk import StageError
from finetune_stages.sources.origin import DATASET, EVAL_DATASET, MODEL
from finetune_stages.sources.uri import parse_uri


@pytest.mark.parametrize(
    ("uri", "source"),
    [
        ("LipengCS/Table-GPT:All", HubId("LipengCS/Table-GPT", "All")),
        ("/data/a b.jsonl", Path("/data/a b.jsonl")),
        ("file:///data/a%20b.jsonl", Path("/data/a b.jsonl")),
        ("s3://bucket/a/", S3Location("bucket", "a/")),
        ("pvc://claim/a", ClaimPath("claim", "a")),
        ("https://example.com/a.jsonl?rev=1", WebAddress("https://example.com/a.jsonl?rev=1")),
    ],
)
def test_a_uri_is_read_by_the_contracts_parser(uri, source):
    assert parse_uri(uri, DATASET) == source


def test_relative_paths_belong_to_the_working_directory_and_the_home(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_uri("./x.json", DATASET) == tmp_path / "inner" / "x.json"
    assert parse_uri("~/x.json", DATASET) == tmp_path / "x.json"
    assert parse_uri("../x.json", DATASET).resolve() == tmp_path / "x.json"


def test_a_user_without_a_home_directory(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _uid: {}[0])  # as for the user ids that OpenShift makes up
    with pytest.raises(StageError) as caught:
        parse_uri("~/x.json", DATASET)
    assert caught.value.reason.name == "DatasetNotFound"
    assert "dataset.uri: ~/x.json is relative to a home directory, and this user has none" in caught.value.message


@pytest.mark.parametrize(
    ("uri", "origin", "reason", "words"),
    [
        ("a/b/c", DATASET, "DatasetNotFound", "dataset.uri: 'a/b/c' is not a hub id"),
        (
            "data.jsonl/",
            DATASET,
            "DatasetNotFound",
            "is not a hub id; write <name> or <owner>/<name>, or begin a local path with /, ./, ../ or ~/.",
        ),
        ("", DATASET, "DatasetNotFound", "is not a hub id"),
        ("hf://", EVAL_DATASET, "DatasetNotFound", "dataset.evalUri"),
        ("org/a..b", MODEL, "ModelNotFound", "model.uri"),
        ("org/model:config", MODEL, "ModelNotFound", "is not a hub id"),
        ("file://data/x", DATASET, "DatasetNotFound", "three slashes"),
        (
            "oci://registry",
            MODEL,
            "ModelNotFound",
            "model.uri: oci://registry is not an address of oci://; write oci://<registry>/<rep",
        ),
        (
            "ftp://host/x",
            DATASET,
            "DatasetNotFound",
            "dataset.uri: ftp:// is not a scheme of a dataset; use a hub id, hf://, https://, s3://, pvc:// or a local path.",
        ),
        (
            "https://host/x",
            MODEL,
            "ModelNotFound",
            "model.uri: https:// is not a scheme of a model; use a hub id, hf://, oci://, s3://, pvc:// or a local directory.",
        ),
        (" org/x", DATASET, "DatasetNotFound", "dataset.uri: ' org/x' begins or ends with a space; remove the space."),
        ("/data/x ", DATASET, "DatasetNotFound", "dataset.uri: '/data/x ' begins or ends with a space; remove the space."),
        (
            "rows.jsonl",
            DATASET,
            "DatasetNotFound",
            "dataset.uri: 'rows.jsonl' is named like a file; write ./<file> for a local path",
        ),
        (
            "/data/a\0b",
            DATASET,
            "DatasetNotFound",
            "dataset.uri: '/data/a\\x00b' has a control character or half of a character",
        ),
        (
            "/data/\ud800",
            MODEL,
            "ModelNotFound",
            "model.uri: '/data/\\ud800' has a control character or half of a character; remove it.",
        ),
        ("file:///data/a%00b", DATASET, "DatasetNotFound", "file:///data/a%00b is not a file URI"),
        ("file://[x/a", DATASET, "DatasetNotFound", "file://[x/a is not a file URI"),
        (
            "https://[x/a",
            EVAL_DATASET,
            "DatasetNotFound",
            "dataset.evalUri: https://[x/a is not a web address, its host or port is malformed; write https://<host>/<file>.",
        ),
    ],
)
def test_what_names_nothing(uri, origin, reason, words):
    with pytest.raises(StageError) as caught:
        parse_uri(uri, origin)
    assert caught.value.reason.name == reason
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (
            "https://alice:s3cr3t@host:99999/x?sig=abc",
            "dataset.uri: https://host:99999/x... is not a web address, its host or port is",
        ),
        ("https://alice:s3cr3t@[host/x?sig=abc", "dataset.uri: https://[host/x... is not a web address"),
        ("https://alice:s3cr3t@ho:st/x#sig=abc", "dataset.uri: https://ho:st/x... is not a web address"),
        ("https://alice:s3c/r3t@host/x", "dataset.uri: https://... is not a web address"),
        ("https://alice:s3c?r3t@host/x", "dataset.uri: https://... is not a web address"),
        ("https://alice:s3cr3t@host/\x01?sig=abc", "dataset.uri: 'https://host/\\x01...' has a control character"),
        ("https://alice:s3cr3t@host/?sig=abc\x01", "dataset.uri: 'https://host/...' has a control character"),
        ("file://alice:s3cr3t@[x/a?sig=abc", "dataset.uri: file://[x/a... is not a file URI"),
        ("file://alice:s3cr3t@x/a?sig=abc", "dataset.uri: file://x/a... is not a file URI"),
        ("hf://alice:s3cr3t@org/x?sig=abc", "model.uri: 'org/x...' is not a hub id"),
        ("alice:s3cr3t@host/x/y?sig=abc", "model.uri: 'host/x/y...' is not a hub id"),
        ("s3://alice:s3cr3t@bucket/x?sig=abc", "dataset.uri: s3://bucket/x... has a login before its host"),
    ],
)
def test_no_message_about_a_uri_has_its_secrets(uri, words):
    with pytest.raises(StageError) as caught:
        parse_uri(uri, MODEL if words.startswith("model") else DATASET)
    assert words in caught.value.message
    assert not [secret for secret in ("alice", "s3c", "r3t", "abc") if secret in caught.value.message]
