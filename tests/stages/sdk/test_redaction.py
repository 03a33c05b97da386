"""Secrets in what a stage prints."""

from __future__ import annotations

import pytest

from finetune_stages.sdk.redaction import Redactor

ENVIRONMENT = {
    "HF_TOKEN": "hf_12345678", "DB_PASS": "hunter2-of-db", "SHORT_PASSWORD": "abc", "PLAIN": "visible-value", "FINETUNE_SECRETS": "DB_PASS,ABSENT",
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("token hf_12345678.", "token ***."),
        ("cannot log in with hunter2-of-db", "cannot log in with ***"),
        ("visible-value abc DB_PASS,ABSENT", "visible-value abc DB_PASS,ABSENT"),
        ("GET https://user:pw@host/x?token=abc&a=b", "GET https://***@host/x?token=***&a=b"),
    ],
)
def test_values_of_secrets_and_credentials_in_urls_are_removed(text: str, expected: str) -> None:
    assert Redactor(ENVIRONMENT)(text) == expected


def test_without_names_of_secrets_only_names_like_those_of_secrets_count() -> None:
    assert Redactor({"DB_PASS": "hunter2-of-db"})("hunter2-of-db") == "hunter2-of-db"
