"""URIs: the table of the OpenShift AI pipelines, and the rule for local paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_stages.sdk import StageError
from finetune_stages.sources.origin import DATASET, EVAL_DATASET, MODEL
from finetune_stages.sources.uri import HubId, LocalPath, WebAddress, parse_uri


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("LipengCS/Table-GPT:All", HubId("LipengCS/Table-GPT", "All")),
        ("hf://LipengCS/Table-GPT:All", HubId("LipengCS/Table-GPT", "All")),
        ("bigcode/x", HubId("bigcode/x")),
        ("bigcode/x:", HubId("bigcode/x")),
        ("org/a:b:c", HubId("org/a", "b:c")),
        ("squad", HubId("squad")),
        ("  org/x.1_2-3  ", HubId("org/x.1_2-3")),
        ("/data/a b.jsonl", LocalPath(Path("/data/a b.jsonl"))),
        ("file:///data/a%20b.jsonl", LocalPath(Path("/data/a b.jsonl"))),
        ("file://localhost/data/x", LocalPath(Path("/data/x"))),
        ("https://example.com/a.jsonl?sig=1", WebAddress("https://example.com/a.jsonl?sig=1")),
        ("http://example.com/a", WebAddress("http://example.com/a")),
    ],
)
def test_what_a_uri_names(uri, place):
    assert parse_uri(uri, DATASET) == place


def test_relative_paths_belong_to_the_working_directory_and_the_home(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_uri("./x.json", DATASET) == LocalPath(tmp_path / "inner" / "x.json")
    assert parse_uri("~/x.json", DATASET) == LocalPath(tmp_path / "x.json")
    assert parse_uri("../x.json", DATASET).path.resolve() == tmp_path / "x.json"


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
        ("a/b/c", DATASET, "DatasetNotFound", "dataset.uri: 'a/b/c' is no hub id"),
        ("data.jsonl/", DATASET, "DatasetNotFound", "a local path begins with /, ./, ../ or ~/"),
        ("", DATASET, "DatasetNotFound", "no hub id"),
        ("hf://", EVAL_DATASET, "DatasetNotFound", "dataset.evalUri"),
        ("org/a..b", MODEL, "ModelNotFound", "model.uri"),
        ("org/model:config", MODEL, "ModelNotFound", "no hub id"),
        ("file://data/x", DATASET, "DatasetNotFound", "three slashes"),
        ("s3://bucket/x", DATASET, "BadDocument", "does not read s3://"),
        ("pvc://claim/x", MODEL, "BadDocument", "model.uri: this release does not read pvc://"),
        ("ftp://host/x", DATASET, "BadDocument", "does not read ftp://"),
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
        ("file:///data/a%00b", DATASET, "DatasetNotFound", "'/data/a\\x00b' has a control character"),
        ("file://[x/a", DATASET, "DatasetNotFound", "file://[x/a is no file URI: its host is malformed"),
        (
            "https://[x/a",
            EVAL_DATASET,
            "DatasetNotFound",
            "dataset.evalUri: https://[x/a is no web address: its host or port is malformed; write https://<host>/<file>.",
        ),
    ],
)
def test_what_names_nothing(uri, origin, reason, words):
    with pytest.raises(StageError) as caught:
        parse_uri(uri, origin)
    assert caught.value.reason.name == reason
    assert words in caught.value.message


def test_an_address_is_shown_without_its_secrets():
    address = WebAddress("https://me:secret@example.com:8443/a.jsonl?X-Amz-Signature=abc#part")
    assert address.shown == "https://example.com:8443/a.jsonl"


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (
            "https://alice:s3cr3t@host:99999/x?sig=abc",
            "dataset.uri: https://host:99999/x... is no web address: its host or port is",
        ),
        ("https://alice:s3cr3t@[host/x?sig=abc", "dataset.uri: https://[host/x... is no web address"),
        ("https://alice:s3cr3t@ho\u2100st/x#sig=abc", "dataset.uri: https://ho\u2100st/x... is no web address"),
        ("https://alice:s3c/r3t@host/x", "dataset.uri: https://... is no web address"),
        ("https://alice:s3c?r3t@host/x", "dataset.uri: https://... is no web address"),
        ("https://alice:s3cr3t@host/\x01?sig=abc", "dataset.uri: 'https://host/\\x01...' has a control character"),
        ("https://alice:s3cr3t@host/?sig=abc\x01", "dataset.uri: 'https://host/...' has a control character"),
        ("file://alice:s3cr3t@[x/a?sig=abc", "dataset.uri: file://[x/a... is no file URI"),
        ("file://alice:s3cr3t@x/a?sig=abc", "dataset.uri: file://x/a... is no absolute file URI"),
        ("hf://alice:s3cr3t@org/x?sig=abc", "model.uri: 'org/x...' is no hub id"),
        ("alice:s3cr3t@host/x/y?sig=abc", "model.uri: 'host/x/y...' is no hub id"),
        ("s3://alice:s3cr3t@bucket/x?sig=abc", "dataset.uri: this release does not read s3://"),
    ],
)
def test_no_message_about_a_uri_has_its_secrets(uri, words):
    with pytest.raises(StageError) as caught:
        parse_uri(uri, MODEL if words.startswith("model") else DATASET)
    assert words in caught.value.message
    assert not [secret for secret in ("alice", "s3c", "r3t", "abc") if secret in caught.value.message]
