"""URIs of data sets and models: what each form refers to, and what a malformed one is rejected with."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_contract.uris import (
    CONTROL,
    FILE,
    ClaimPath,
    HubId,
    ImageReference,
    LocalPath,
    S3Location,
    UriError,
    UriKind,
    WebAddress,
    is_local_path,
    local_path,
    parse_uri,
    shown,
)


@pytest.mark.parametrize(
    ("uri", "parsed"),
    [
        ("LipengCS/Table-GPT:All", HubId("LipengCS/Table-GPT", "All")),
        ("hf://LipengCS/Table-GPT:All", HubId("LipengCS/Table-GPT", "All")),
        ("bigcode/x", HubId("bigcode/x")),
        ("squad", HubId("squad")),
        ("org/x.1_2-3", HubId("org/x.1_2-3")),
        ("a.-.b", HubId("a.-.b")),
        ("hf://rows.jsonl", HubId("rows.jsonl")),
        ("/data/a b.jsonl", LocalPath("/data/a b.jsonl")),
        ("/data/http://x", LocalPath("/data/http://x")),
        ("./a%20b", LocalPath("./a%20b")),
        ("~/x.json", LocalPath("~/x.json")),
        ("file:///data/a%20b.jsonl", LocalPath("/data/a b.jsonl")),
        ("file:///data/100%25.jsonl", LocalPath("/data/100%.jsonl")),
        ("file:///data/%C3%BC.jsonl", LocalPath("/data/ü.jsonl")),
        ("file:///%E2%82%AC/%f0%9f%98%80", LocalPath("/\u20ac/\U0001f600")),
        ("https://example.com/a.jsonl?rev=1", WebAddress("https://example.com/a.jsonl?rev=1")),
        ("http://[::1]:65535", WebAddress("http://[::1]:65535")),
        ("s3://bucket/rows.jsonl", S3Location("bucket", "rows.jsonl")),
        ("s3://bucket/a/b/", S3Location("bucket", "a/b/")),
        ("s3://bucket/a%20b/**/*.json?", S3Location("bucket", "a%20b/**/*.json?")),
        ("s3://bucket", S3Location("bucket", "")),
        ("pvc://claim/rows.jsonl", ClaimPath("claim", "rows.jsonl")),
        ("pvc://my.claim/a/..b/.c/...d/", ClaimPath("my.claim", "a/..b/.c/...d/")),
    ],
)
def test_the_form_of_a_uri_determines_its_source(uri: str, parsed: object) -> None:
    assert parse_uri(uri, "dataset") == parsed


@pytest.mark.parametrize(
    "escapes",
    ["%ff", "a%FFb", "%80", "%c3", "%c3a", "%c3%c3", "%c0%af", "%c1%bf", "%e0%80%80", "%e2%82", "%ed%a0%80", "%f0%80%80%80", "%f4%90%80%80", "%f5%80%80%80"],
)  # fmt: skip
def test_an_escape_that_is_not_utf_8_is_rejected(escapes: str) -> None:
    for kind in get_args(UriKind):
        with pytest.raises(UriError) as rejected:
            parse_uri(f"file:///{escapes}", kind)
        assert str(rejected.value) == (
            f"file:///{escapes} has an escape that is not UTF-8; write the name in UTF-8, such as %C3%BC for \u00fc"
        )


def test_every_character_can_be_escaped() -> None:
    for code in (*range(0x20, 0x7F), *range(0x80, 0xD800), *range(0xE000, 0x110000)):
        escaped = "".join(f"%{byte:02x}" for byte in chr(code).encode())
        assert re.fullmatch(FILE, f"file:///{escaped}", re.ASCII), hex(code)


@given(st.binary(min_size=1, max_size=8))
def test_escaped_bytes_are_a_path_exactly_if_they_are_utf_8(content: bytes) -> None:
    uri = "file:///" + "".join(f"%{byte:02X}" for byte in content)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if re.search(CONTROL, text):
        with pytest.raises(UriError):
            parse_uri(uri, "dataset")
    else:
        assert parse_uri(uri, "dataset") == LocalPath(f"/{text}")


def test_models_have_images_and_no_web_addresses_or_configurations() -> None:
    digest = f"sha256:{'0' * 64}"
    for uri, expected in {
        "oci://registry.example.com/m:1": ImageReference("registry.example.com", "m", "1"),
        "oci://localhost:5000/team/model": ImageReference("localhost:5000", "team/model", "latest"),
        f"oci://quay.io/a/b/c@{digest}": ImageReference("quay.io", "a/b/c", None, digest),
        f"oci://quay.io/a:v1@{digest}": ImageReference("quay.io", "a", "v1", digest),
    }.items():
        assert parse_uri(uri, "model") == expected
        assert expected.shown in (uri, f"{uri}:latest")
    assert parse_uri("org/model", "model") == HubId("org/model")
    for uri in ("pvc://claim", "pvc://claim/"):
        assert parse_uri(uri, "model") == ClaimPath("claim", "")
    for uri in ("https://example.com/model", "org/model:config", "hf://org/model:config"):
        with pytest.raises(UriError):
            parse_uri(uri, "model")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "'' is not a hub id; write <name> or <owner>/<name>, or begin a local path with /, ./, ../ or ~/"),
        ("a/b/c", "'a/b/c' is not a hub id"),
        ("org/a..b", "'org/a..b' is not a hub id"),
        ("org/a--b", "'org/a--b' is not a hub id"),
        ("bigcode/x:", "'bigcode/x:' is not a hub id"),
        ("org/\u00e4", "is not a hub id"),
        ("hf://hf://org/x", "'hf://org/x' is not a hub id"),
        ("hf:///x", "'/x' is not a hub id"),
        (" /data/x", "' /data/x' begins or ends with a space; remove the space"),
        ("/data/x ", "'/data/x ' begins or ends with a space; remove the space"),
        (" hf://org/x", "begins or ends with a space"),
        ("/data/a\0b", "'/data/a\\x00b' has a control character or half of a character; remove it"),
        ("org/x\n", "has a control character"),
        ("/data/\ud800", "'/data/\\ud800' has a control character or half of a character"),
        ("rows.jsonl", "'rows.jsonl' is named like a file; write ./<file> for a local path, or hf://<id> for a hub id"),
        ("C:\\rows.jsonl", "is named like a file"),
        (
            "file://data/x",
            "file://data/x is not a file URI; write file:///<folder>/<file> with three slashes, and %, ? and # in a",
        ),
        ("file:///100%.jsonl", "is not a file URI"),
        ("file:///a%00b", "is not a file URI"),
        ("file:///a?b", "file:///a... is not a file URI"),
        ("https:///x", "https:///x is not a web address, it names no host; write https://<host>/<file>"),
        ("http://:80/", "it names no host"),
        ("https://[x/y", "its host or port is malformed"),
        ("https://example.com:65536/x", "its host or port is malformed"),
        ("https://example.com:0/x", "its host or port is malformed"),
        ("https://example.com/a b", "is not a web address, it has a space"),
        ("s3:///x", "s3:///x is not an address of s3://; write s3://<bucket>/<key>"),
        ("s3://bucket/a b", "s3://bucket/a b is not an address of s3://, it has a space; write ? for the space"),
        ("pvc://claim/a b", "pvc://claim/a b is not an address of pvc://, it has a space; remove the space"),
        ("pvc://claim", "pvc://claim is not an address of pvc://; write pvc://<claim>/<path> without . and .. in the path"),
        ("pvc://claim/", "pvc://claim/ is not an address of pvc://"),
        ("pvc://claim/../other", "is not an address of pvc://; write pvc://<claim>/<path> without . and .. in the path"),
        ("pvc://claim/a/..", "is not an address of pvc://"),
        ("pvc://claim/./a", "is not an address of pvc://"),
        ("pvc://claim//a", "is not an address of pvc://"),
        ("pvc://Claim/a", "is not an address of pvc://"),
        ("ftp://host/x", "ftp:// is not a scheme of a dataset; use a hub id, hf://, https://, s3://, pvc:// or a local path"),
        ("oci://registry.example.com/x", "oci:// is not a scheme of a dataset"),
        ("HTTPS://example.com/x", "HTTPS:// is not a scheme of a dataset"),
    ],
)
def test_a_malformed_uri_is_rejected_with_its_problem_and_its_fix(uri: str, message: str) -> None:
    with pytest.raises(UriError) as rejected:
        parse_uri(uri, "dataset")
    assert message in str(rejected.value)


@pytest.mark.parametrize(
    "uri",
    [
        "-" * 1024,
        "a" * 1023 + "!",
        "a-" * 512,
        "a.-" * 341 + "!",
        "http://" + "a:" * 500,
        "file:///" + "%" * 900,
        "file:///" + "%e2" * 330,
    ],
)
def test_no_uri_takes_exponential_time(uri: str) -> None:
    for kind in get_args(UriKind):
        with pytest.raises(UriError):
            parse_uri(uri, kind)


def test_local_paths_are_decoded_and_malformed_ones_are_none() -> None:
    assert local_path("file:///a%20b") == "/a b"
    assert local_path("./a%20b") == "./a%20b"
    assert local_path("org/x") is None
    assert local_path("/data/x ") is None
    assert is_local_path("/data/x ")
    assert is_local_path("file://x")
    assert not is_local_path(" /data/x")


def test_locations_are_shown_as_they_are_written() -> None:
    assert S3Location("bucket", "a/*?.jsonl").shown == "s3://bucket/a/*?.jsonl"
    assert ClaimPath("claim", "a/b").shown == "pvc://claim/a/b"


def test_an_address_is_shown_without_its_secrets() -> None:
    address = WebAddress("https://me:secret@example.com:8443/a.jsonl?X-Amz-Signature=abc#part")
    assert address.shown == "https://example.com:8443/a.jsonl"
    assert WebAddress("https://example.com?sig=abc").shown == "https://example.com"
    assert shown("./a?b") == "./a?b"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("https://ann:pa/ss@example.com/rows.jsonl", "https://..."),
        ("https://ann:pa?ss@example.com/rows.jsonl", "https://..."),
        ("https://ann:pass@example.com/rows.jsonl?token=x", "https://example.com/rows.jsonl..."),
        ("./rows?.jsonl", "./rows?.jsonl"),
    ],
)
def test_a_message_shows_no_credentials(uri: str, message: str) -> None:
    assert shown(uri) == message


@pytest.mark.parametrize("uri", ["file:rows", "https:x", "s3:bucket", "hf:org", "pvc:a", "file:"])
def test_a_scheme_needs_slashes(uri: str) -> None:
    with pytest.raises(UriError, match=r"lacks // after its scheme; write \w+://, or hf://<id> for a hub id"):
        parse_uri(uri, "dataset")


def test_a_hub_id_may_be_the_name_of_a_scheme() -> None:
    assert parse_uri("hf://file:rows", "dataset") == HubId("file", "rows")


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("https://ann:s3cr3t@example.com/x", "https://example.com/x has a login before its host; remove it, and put the login into a Secret"),
        ("https://ann@example.com/x", "https://example.com/x has a login before its host; remove it, and put the login into a Secret"),
        *(
            (f"https://example.com/x?a=b&{name}=s3cr3t", "https://example.com/x... has a signature, a token or a key; remove it, and put the login into a Secret")
            for name in ("X-Amz-Signature", "X-Amz-Credential", "X-Goog-Signature", "sig", "SIG", "token", "access_token", "AWSAccessKeyId", "api_key", "x.auth", "password", "key")
        ),
        ("s3://bucket/x?token=s3cr3t", "s3://bucket/x... has a signature, a token or a key; remove it, and put the login into a Secret"),
    ],
)  # fmt: skip
def test_credentials_in_a_uri_are_rejected(uri: str, problem: str) -> None:
    with pytest.raises(UriError) as error:
        parse_uri(uri, "dataset")
    assert str(error.value) == problem
    assert "s3cr3t" not in str(error.value)


@pytest.mark.parametrize(
    "uri",
    ["https://example.com/a@b/x?keyword=1&design=2&rev=3&versionId=4", "/data/x?token=1", "s3://bucket/a@b/rows-?.jsonl", "https://example.com/sig=1"],
)  # fmt: skip
def test_a_uri_without_credentials(uri: str) -> None:
    parse_uri(uri, "dataset")


def test_the_digest_of_an_image_is_no_login() -> None:
    assert parse_uri(f"oci://quay.io/image@sha256:{'a' * 64}", "model") == ImageReference(
        "quay.io", "image", digest=f"sha256:{'a' * 64}"
    )
    with pytest.raises(UriError, match="has a login"):
        parse_uri("oci://ann:pw@registry/image", "model")
