"""Removal of secrets from everything that a stage prints or reports."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from finetune_contract.documents import SECRETS_VARIABLE
from finetune_contract.redaction import HIDDEN, redact

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|ACCESS_KEY|CREDENTIAL|PULL_SECRET|API_KEY|AUTHORIZATION", re.IGNORECASE)
_SHORTEST = 6
"""Characters. Shorter values are not redacted, because they occur in ordinary words."""
_SHORTEST_LINE = 16
"""Characters of a line of a value with several lines, such as a key in PEM. Shorter lines occur in ordinary text."""

_LOGIN_KEYS = ("username", "password", "auth", "identitytoken", "registrytoken")
"""Keys of an entry of a pull secret whose values are secret."""


class Redactor:
    """Replaces the values of environment variables that come from Secrets or have names like those of secrets, and credentials by their form, by ``***``."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        named = set(environment.get(SECRETS_VARIABLE, "").split(","))
        secrets = [
            value
            for name, value in environment.items()
            if (_SECRET_NAME.search(name) or name in named) and name != SECRETS_VARIABLE
        ]
        values = {form for value in secrets for form in _forms(value)}
        self._values = sorted(values, key=lambda value: (-len(value), value))  # a value may contain another one

    def __call__(self, text: str) -> str:
        """Return ``text`` with secrets replaced."""
        for value in self._values:
            text = text.replace(value, HIDDEN)
        return redact(text)


def _forms(value: str) -> Iterator[str]:
    """Yield the texts in which a value may appear: whole, line by line, and the parts of a pull secret."""
    yield from _written(value)
    lines = value.splitlines()
    if len(lines) > 1:
        yield from (line.strip() for line in lines if len(line.strip()) >= _SHORTEST_LINE)
    for login in _logins(value):
        for text in filter(None, login):
            yield from _written(text)


def _written(value: str) -> Iterator[str]:
    """Yield a text as it is, without the scheme of an Authorization header, and in a URI."""
    bare = value.strip()
    for form in (value, bare, bare.rpartition(" ")[2], quote(bare, safe="")):
        if len(form) >= _SHORTEST:
            yield form


def _logins(value: str) -> Iterator[tuple[str, ...]]:
    """Yield the secret texts of each entry of a pull secret (``config.json`` of Docker); nothing for other values."""
    try:
        content = json.loads(value) if value.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        return
    entries = content.get("auths", content) if isinstance(content, dict) else {}  # older files have no ``auths``
    for entry in entries.values() if isinstance(entries, dict) else ():
        texts = {name: text for name, text in entry.items() if isinstance(text, str)} if isinstance(entry, dict) else {}
        yield tuple(texts[name] for name in _LOGIN_KEYS if name in texts)
        user, separator, password = _decoded(texts.get("auth", "")).partition(":")
        yield (f"{user}{separator}{password}", user, password.rstrip("\x00\n"))


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
