"""Removal of secrets from everything that a stage prints or reports."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, quote_plus

from finetune_contract.documents import SECRETS_VARIABLE
from finetune_contract.progress import MARK, Progress, to_rhoai
from finetune_contract.redaction import HIDDEN, redact
from finetune_contract.result import OUR_KEY

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|ACCESS_KEY|CREDENTIAL|PULL_SECRET|API_KEY|AUTHORIZATION", re.IGNORECASE)
_SHORTEST = 6
"""Characters. Shorter values are not redacted, because they occur in ordinary words."""
_SHORTEST_LINE = 16
"""Characters of a line of a value with several lines, such as a key in PEM. Shorter lines occur in ordinary text."""

_FEW_LINES = 256
"""Lines of Secrets that are looked for anywhere in a text. More of them are found only where they are a whole line."""
_PERCENT = re.compile(r"%[0-9A-F]{2}")
_STAGES = (
    "dataset",
    "model",
    "tokenization",
    "training",
    "baseline",
    "evaluation",
    "registration",
    "registry-check",
    "engine-check",
)
_PROTOCOL = (MARK, OUR_KEY, *to_rhoai(Progress(0, 0, 0, 0.0, 0, 0, 0.0, 0.0, 0.0, 0, "")), *_STAGES)
"""Words of the lines that the operator reads. A Secret with such a value would destroy them, and its value is no secret."""

_LOGIN_KEYS = ("username", "password", "auth", "identitytoken", "registrytoken")
"""Keys of an entry of a pull secret whose values are secret."""


class Redactor:
    """Replaces the values of environment variables that come from Secrets or have names like those of secrets, and credentials by their form, by ``***``."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        named = {name.strip() for name in environment.get(SECRETS_VARIABLE, "").split(",")}
        secrets = [
            value
            for name, value in environment.items()
            if (_SECRET_NAME.search(name) or name in named) and name != SECRETS_VARIABLE
        ]
        values = {form for value in secrets for form in _forms(value) if not any(form in word for word in _PROTOCOL)}
        self._lines = frozenset(line for value in secrets for line in _lines(value))
        few = self._lines if len(self._lines) <= _FEW_LINES else ()
        values.update(few)
        self._values = sorted(values, key=lambda value: (-len(value), value))  # a value may contain another one

    def __call__(self, text: str) -> str:
        """Return ``text`` with secrets replaced."""
        for value in self._values:
            text = text.replace(value, HIDDEN)
        if len(self._lines) > _FEW_LINES:
            text = "".join(self._without_line(line) for line in text.splitlines(keepends=True))
        return redact(text)

    def _without_line(self, line: str) -> str:
        bare = line.strip()
        return line.replace(bare, HIDDEN) if bare in self._lines else line


def _forms(value: str) -> Iterator[str]:
    """Yield the texts in which a value may appear: whole, and the parts of a pull secret."""
    yield from _written(value)
    for login in _logins(value):
        for text in filter(None, login):
            yield from _written(text)


def _lines(value: str) -> Iterator[str]:
    """Yield the lines of a value with several lines."""
    lines = value.splitlines()
    if len(lines) > 1:
        yield from (line.strip() for line in lines if len(line.strip()) >= _SHORTEST_LINE)


def _written(value: str) -> Iterator[str]:
    """Yield a text as it is, without the scheme of an Authorization header, in a URI, in JSON, in Python, and in a Basic header."""
    bare = value.strip()
    if len(bare) < _SHORTEST:
        return
    percent = quote(bare, safe="")
    lower = _PERCENT.sub(lambda found: found[0].lower(), percent)
    quoted = (json.dumps(bare)[1:-1], json.dumps(bare, ensure_ascii=False)[1:-1], repr(bare)[1:-1])
    encoded = base64.b64encode(bare.encode(errors="surrogateescape")).decode()
    for form in (value, bare, bare.rpartition(" ")[2], percent, lower, quote_plus(bare), *quoted, encoded):
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
