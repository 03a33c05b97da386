"""Secrets in what a stage prints."""

from __future__ import annotations

import base64
import json
import time

import pytest

from finetune_contract.documents import SECRETS_VARIABLE
from finetune_contract.progress import MARK, Progress, to_rhoai
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


AUTH = base64.b64encode(b"robot-of-team:s3cr3t-of-quay").decode()
PULL_SECRETS = {
    "decoded": {"auths": {"quay.io": {"auth": AUTH}}},
    "separate": {"auths": {"quay.io": {"username": "robot-of-team", "password": "s3cr3t-of-quay", "auth": AUTH}}},
    "older": {"quay.io": {"auth": AUTH, "email": "none@example.com"}},
}


@pytest.mark.parametrize("content", PULL_SECRETS.values(), ids=PULL_SECRETS)
@pytest.mark.parametrize("text", [AUTH, "robot-of-team", "s3cr3t-of-quay", "robot-of-team:s3cr3t-of-quay"])
def test_what_is_inside_a_pull_secret_is_removed(content: dict[str, object], text: str) -> None:
    redact = Redactor({"FINETUNE_MODEL_PULL_SECRET": json.dumps(content)})
    assert redact(f"the registry quay.io rejects {text}.") == "the registry quay.io rejects ***."


@pytest.mark.parametrize("key", ["identitytoken", "registrytoken"])
def test_the_tokens_of_a_pull_secret_are_removed(key: str) -> None:
    redact = Redactor({"FINETUNE_MODEL_PULL_SECRET": json.dumps({"auths": {"quay.io": {key: "opaque-token-1"}}})})
    assert redact("sent opaque-token-1") == "sent ***"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "{" * 100_000,
        "[" * 100_000,
        '{"auths": 1}',
        '{"auths": {"quay.io": "x"}}',
        '{"auths": {"quay.io": {"auth": "\u00e4"}}}',
        "{}",
    ],
)
def test_another_value_is_removed_as_a_whole(content: str) -> None:
    assert Redactor({"PULL_SECRET": content})("visible") == "visible"


PASSWORD = 'pa"ss\\w\u00f6rd/wo'
WRITTEN = {
    "JSON": json.dumps({"p": PASSWORD}), "JSON in UTF-8": json.dumps({"p": PASSWORD}, ensure_ascii=False), "repr": repr({"p": PASSWORD}),
    "Basic": base64.b64encode(PASSWORD.encode()).decode(), "lower-case escapes": "pa%22ss%5cw%c3%b6rd%2fwo", "plain": PASSWORD,
}  # fmt: skip


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_a_value_is_removed_as_programs_write_it(text: str) -> None:
    found = Redactor({"DB_PASSWORD": PASSWORD})(f"sent {text}")
    assert "***" in found
    assert not any(part in found for part in ("ss", "rd", "cGEi"))


def test_a_space_in_a_form_is_a_plus() -> None:
    assert Redactor({"DB_PASSWORD": "two words"})("q=two+words") == "q=***"


def test_names_of_secrets_may_have_blanks() -> None:
    assert Redactor({"A": "value-of-a", "B": "value-of-b", SECRETS_VARIABLE: "A, B"})("value-of-a value-of-b") == "*** ***"


@pytest.mark.parametrize("value", ["progressPercentage", "training", "FINETUNE_PROGRESS", "Percentage"])
def test_a_value_that_is_a_word_of_the_protocol_does_not_destroy_it(value: str) -> None:
    line = f"{MARK}{json.dumps(to_rhoai(Progress(5)))}"
    assert Redactor({"A_TOKEN": value})(line) == line


def test_a_secret_with_many_lines_costs_little() -> None:
    lines = [f"line-number-{number:08}-of-a-secret" for number in range(30_000)]
    redact = Redactor({"A_TOKEN": "\n".join(lines)})
    began = time.process_time()
    for _ in range(20):
        assert redact(f"a\n  {lines[29_999]}\nb{'x' * 300}") == f"a\n  ***\nb{'x' * 300}"
    assert (time.process_time() - began) / 20 < 0.003
