"""Removal of secrets from everything that a stage prints or reports."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from finetune_contract.documents import SECRETS_VARIABLE

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|ACCESS_KEY|CREDENTIAL|PULL_SECRET|API_KEY|AUTHORIZATION", re.IGNORECASE)
_SHORTEST = 6
"""Characters. Shorter values are not redacted, because they occur in ordinary words."""
_URL_SECRETS = re.compile(
    r"(\w+://)[^/\s@]+@|((?:[?&])(?:[\w.-]*(?:token|signature|credential|key|sig|secret)[\w.-]*)=)[^&\s\"']+", re.IGNORECASE
)


class Redactor:
    """Replaces the values of environment variables that come from Secrets or have names like those of secrets, and credentials in URLs, by ``***``."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        named = set(environment.get(SECRETS_VARIABLE, "").split(","))
        secrets = [
            value
            for name, value in environment.items()
            if (_SECRET_NAME.search(name) or name in named) and name != SECRETS_VARIABLE
        ]
        # The value of an Authorization header is a scheme and the secret, which may appear alone.
        values = {part for value in secrets for part in (value, value.rpartition(" ")[2]) if len(part) >= _SHORTEST}
        ordered = sorted(values, key=len, reverse=True)
        self._values = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        """Return ``text`` with secrets replaced."""
        if self._values is not None:
            text = self._values.sub("***", text)
        if "://" in text:
            text = _URL_SECRETS.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", text)
        return text
