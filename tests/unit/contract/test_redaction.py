"""Credentials in texts, found by their form."""

from __future__ import annotations

import re

import pytest

from finetune_contract.redaction import is_secret_parameter, redact
from finetune_contract.uris import SIGNATURE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GET https://user:pw@host/x", "GET https://***@host/x"),
        ("s3://key:se:cr@et@bucket/x and mail@example.com", "s3://***@bucket/x and mail@example.com"),
        ("https://host/x?X-Amz-Signature=ab12&X-Amz-Date=1&X-Amz-Credential=c%2Fd", "https://host/x?X-Amz-Signature=***&X-Amz-Date=1&X-Amz-Credential=***"),
        ("https://a.blob/x?sv=1&sig=a%2Bb&se=2", "https://a.blob/x?sv=1&sig=***&se=2"),
        ("/x?AWSAccessKeyId=AKIAx&design=1#access_token=t", "/x?AWSAccessKeyId=***&design=1#access_token=***"),
        (r'{"u":"https://h/x?a=1\u0026token=abc\u0026b=2"}', r'{"u":"https://h/x?a=1\u0026token=***\u0026b=2"}'),
        ("Authorization: ApiKey abcdef", "Authorization: ApiKey ***"), ("authorization: AWS4-HMAC-SHA256 Credential=abc", "authorization: AWS4-HMAC-SHA256 ***"),
        ("Authorization: Basic dXNlcjpwdw==", "Authorization: Basic ***"),
        ('{"authorization": "Bearer abcdef"}', '{"authorization": "Bearer ***"}'),
        ("sent Bearer abcdefghijklmnop", "sent Bearer ***"),
        ("hf_abcdefghijklmnopqrst and AKIAABCDEFGHIJKLMNOP", "*** and ***"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.c2ln", "***"),
        ("sha256~abcdefghijklmnopqrstuvwx", "***"),
        ("github_pat_11ABCDEFG0abcdefghijklmn sk-abcdefghijklmnopqrstuvwx xoxb-123456789012-abc", "*** *** ***"),
        ("password=hunter2 api_key='abcd' DB_PASSWORD=\"a b\"", "password=*** api_key='***' DB_PASSWORD=\"a b\""),
        ("AWS_SECRET_ACCESS_KEY='abc/def+ghi' HF_TOKEN=opaque", "AWS_SECRET_ACCESS_KEY='***' HF_TOKEN=***"),
        ('{"password": "hunter2", "access_token": "abcdef"}', '{"password": "***", "access_token": "***"}'),
        ("X-Api-Key: abcdef123", "X-Api-Key: ***"), ("Cookie: session=abcdef", "Cookie: ***"),
        ("Cookie: session=abcdef; other=ghijkl\nnext", "Cookie: ***\nnext"), ("password=Pa55$w0rd*2024 x", "password=*** x"),
        ("API_TOKEN=abc$def{g x", "API_TOKEN=*** x"), ("password=$PASSWORD", "password=$PASSWORD"),
        ("AuThorization: Bearer abc.def", "AuThorization: Bearer ***"),
        ('Authorization: Digest username="x", response="deadbeef1234"', 'Authorization: Digest ***"x", response="***"'),
        ("model.pullSecret: quay.io rejects it", "model.pullSecret: quay.io rejects it"),
        ("password=*** max_tokens=512 eos_token='</s>' key: value tokens=900 monkey=banana", "password=*** max_tokens=512 eos_token='</s>' key: value tokens=900 monkey=banana"),
        ("sha256:abcdefghijklmnopqrstuvwx lr=2e-5 Basic information", "sha256:abcdefghijklmnopqrstuvwx lr=2e-5 Basic information"),
    ],
)  # fmt: skip
def test_credentials_are_replaced(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "name",
    [
        "X-Amz-Security-Token",
        "X-Goog-Signature",
        "sig",
        "api_key",
        "code.auth",
        "AWSAccessKeyId",
        "password",
        "sharedkey",
        "Key-Pair-Id",
    ],
)
def test_a_secret_parameter_is_hidden_and_rejected(name: str) -> None:
    assert is_secret_parameter(name)
    assert re.search(SIGNATURE, f"https://example.com/x?{name}=1")


@pytest.mark.parametrize(
    "name", ["design", "signal", "download", "revision", "versionId", "author", "rev", "keyword", "monkey", "key_id"]
)
def test_another_parameter_is_neither(name: str) -> None:
    assert not is_secret_parameter(name)
    assert not re.search(SIGNATURE, f"https://example.com/x?{name}=1")
