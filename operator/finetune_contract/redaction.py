"""Removal of credentials from texts by their form: logins and signatures in URIs, headers, assignments, tokens of known services.

It needs no value of a Secret, so the operator, which reads no Secrets, uses it for what it writes. Stage programs also remove the values
of their Secrets (:mod:`finetune_stages.sdk.redaction`). Each pattern takes time linear in the text: an attempt that fails ends at a
character with which no other attempt begins, or after a bounded number of characters.
"""

from __future__ import annotations

import re

HIDDEN = "***"

_NAME = "[^=&#;?]*"
SECRET_PARAMETER = (
    rf"({_NAME}[-_.])?(sig|key|auth|pwd)|{_NAME}(token|signature|credential|secret|passw){_NAME}"
    rf"|{_NAME}(api|access|account|master|private|shared|storage|subscription)[-_]?key([-_]?id)?|key[-_]?pair[-_]?id"
)
"""The whole name of a parameter of a URI that is secret, in any case: those of S3, CloudFront, Azure, Google and OAuth. RE2 reads it, too."""
_SECRET_PARAMETER = re.compile(SECRET_PARAMETER, re.IGNORECASE)
_PARAMETER = r"([\w.%-]{1,80})=([^&\s\"'#;<>\\]+)"
_PARAMETERS = (("=", re.compile(f"([?&#;]){_PARAMETER}")), ("\\u0026", re.compile(rf"(\\u0026){_PARAMETER}")))
_LOGIN = re.compile(r"://[^/\s\"'<>]*@")
_HEADER = re.compile(
    r"(uthorization[\"']{0,2} {0,4}[:=] {0,4}[\"']{0,2}(?:(?:bearer|basic|token|api-?key|key|digest|negotiate|ntlm|aws4-hmac-sha256) {1,4})?)[^\s\"',]{4,}",
    re.IGNORECASE,
)
_DIGEST_RESPONSE = re.compile(r'(response=")[^"\s]{8,}')
_OTHER_HEADER = re.compile(r"((?:x-api-key|x-auth-token)[\"']{0,2} {0,4}: {0,4}[\"']?)[^\s\"',]{4,}", re.IGNORECASE)
_COOKIES = re.compile(r"(cookie[\"']{0,2} {0,4}: {0,4}[\"']?)[^\r\n\"']{4,}", re.IGNORECASE)
"""A header has several cookies: all of the line is hidden."""
_NAMED = r"(?:password|passwd|secret|api[-_]?key|access[-_]?key|private[-_]?key|(?:access|auth|refresh|id)[-_]?token)"
_ASSIGNED = re.compile(rf"({_NAMED}[\"']? ?= ?[\"']?)[^\s\"',;&*<{{$][^\s\"',;&]{{3,}}", re.IGNORECASE)
"""An assignment, as in ``password=...`` of a connection string or ``AWS_SECRET_ACCESS_KEY='...'`` of a shell."""
_QUOTED = re.compile(rf"({_NAMED}[\"'] {{0,2}}: {{0,2}}[\"'])[^\s\"'*<]{{4,}}", re.IGNORECASE)
"""A member of a JSON object or a Python dict. A colon after an unquoted name is common in messages: ``model.pullSecret: ...``."""
_TOKEN_VARIABLE = re.compile(r"([A-Z]_TOKEN=[\"']?)[^\s\"',;&*<{$][^\s\"',;&]{3,}")
_BEARER = re.compile(r"(Bearer {1,4})[A-Za-z0-9._~+/=-]{12,}")
_TOKENS = tuple(
    (start, re.compile(pattern))
    for start, pattern in (
        ("hf_", r"\bhf_[A-Za-z0-9]{16,}"),
        ("AKIA", r"\bAKIA[A-Z0-9]{16}\b"),
        ("ASIA", r"\bASIA[A-Z0-9]{16}\b"),
        ("github_pat_", r"\bgithub_pat_[A-Za-z0-9_]{20,}"),
        ("sk-", r"\bsk-[A-Za-z0-9_-]{20,}"),
        ("xox", r"\bxox[abeprs]-[A-Za-z0-9-]{10,}"),
        ("gh", r"\bgh[oprsu]_[A-Za-z0-9]{20,}"),
        ("glpat-", r"\bglpat-[A-Za-z0-9]{16,}"),
        ("sha256~", r"\bsha256~[A-Za-z0-9]{20,}"),
        ("eyJ", r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"),
    )
)
"""Tokens of the Hugging Face Hub, S3, GitHub, GitLab, Slack, OpenShift and services with keys like OpenAI's, and JSON Web Tokens, which Kubernetes issues, with their first characters."""


def redact(text: str) -> str:
    """Return ``text`` with credentials replaced by ``***``."""
    if "://" in text:
        text = _LOGIN.sub(f"://{HIDDEN}@", text)
    for start, pattern in _PARAMETERS:
        if start in text:
            text = pattern.sub(_without_secret, text)
    if "=" in text or ":" in text:
        text = _without_named(text)
    if "Bearer " in text:
        text = _BEARER.sub(rf"\1{HIDDEN}", text)
    for start, pattern in _TOKENS:
        if start in text:
            text = pattern.sub(HIDDEN, text)
    return text


def _without_named(text: str) -> str:
    """Return a text without the values of headers, assignments and members of objects whose names are those of secrets."""
    lower = text.lower()
    if "authorization" in lower:
        text = _HEADER.sub(rf"\1{HIDDEN}", text)
        text = _DIGEST_RESPONSE.sub(rf"\1{HIDDEN}", text)
    if "x-a" in lower:
        text = _OTHER_HEADER.sub(rf"\1{HIDDEN}", text)
    if "cookie" in lower:
        text = _COOKIES.sub(rf"\1{HIDDEN}", text)
    if any(word in lower for word in ("passw", "secret", "key", "token")):
        for pattern in (_ASSIGNED, _QUOTED, _TOKEN_VARIABLE):
            text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


def is_secret_parameter(name: str) -> bool:
    """Return whether the parameter of a URI with this name is secret."""
    return _SECRET_PARAMETER.fullmatch(name) is not None


def _without_secret(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}={HIDDEN}" if is_secret_parameter(found[2]) else found[0]
