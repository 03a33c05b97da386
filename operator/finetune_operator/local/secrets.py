"""Secrets in local mode, from the files of ``--secret``, else from environment variables with standard names. They are never stored."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from finetune_contract.uris import S3_ENDPOINT_KEYS
from finetune_operator.api.kubernetes_yaml import InvalidYAML, parse
from finetune_operator.core.manifests.pod import PULL_SECRET_KEY, STANDARD_KEYS

_S3_OF_AWS = re.compile(r"s3(-fips)?(\.dualstack)?(\.[a-z0-9-]{1,40})?\.amazonaws\.com(\.cn)?")


class SecretFileProblem(ValueError):
    """A file of ``--secret`` cannot be used; the message has the reason and never the content."""


class LocalSecrets:
    """Resolves a ``secretKeyRef``: the key of the given file, else the environment variable with the name of a standard key.

    A run could otherwise name any variable of the user's environment, and send it somewhere.

    Attributes:
        read: keys that pods have asked for, by the name of the Secret.
        missing: Secrets and keys that pods have asked for and that have no value, optional ones included.
    """

    def __init__(self, files: Mapping[str, Path], environment: Mapping[str, str] = os.environ) -> None:
        self._files = {name: read_secret_file(path) for name, path in files.items()}
        self._environment = environment
        self.read: dict[str, set[str]] = {}
        self.missing: set[tuple[str, str]] = set()

    def __call__(self, name: str, key: str, endpoint: str | None = None) -> str | None:
        """Return the value; ``None`` or empty if there is none, or if the S3 server ``endpoint`` of the run must not receive it."""
        self.read.setdefault(name, set()).add(key)
        value = self._value(name, key, endpoint)
        if not value:
            self.missing.add((name, key))
        return value

    def unread(self) -> Iterator[str]:
        """Yield a message for each given Secret of which no pod has read a key. Nothing if no pod has asked for any."""
        for name, keys in self._files.items():
            asked = self.read.get(name, set())
            if not self.read or keys.keys() & asked:
                continue
            if asked:
                found = f"the run reads no key of it; its keys are {', '.join(sorted(keys)) or 'none'}"
                yield f"--secret {name}: {found}; name them as the run does: {', '.join(sorted(asked))}."
            else:
                yield f"--secret {name}: the run does not read this Secret; use a name that it reads: {', '.join(sorted(self.read))}."

    def _value(self, name: str, key: str, endpoint: str | None) -> str | None:
        if name in self._files:
            return self._files[name].get(key)
        if key.startswith("AWS_") and endpoint and not self._is_known(endpoint):
            return None
        return self._environment.get(key) if key in STANDARD_KEYS else None

    def _is_known(self, endpoint: str) -> bool:
        """Return whether an S3 server is one of AWS or of the environment."""
        parts = urlsplit(endpoint)
        if parts.scheme == "https" and _S3_OF_AWS.fullmatch(parts.hostname or ""):
            return True
        return endpoint.rstrip("/") in {
            self._environment[name].rstrip("/") for name in S3_ENDPOINT_KEYS if name in self._environment
        }


def read_secret_file(path: Path) -> dict[str, str]:
    """Return the keys of a secret file: ``KEY=value`` lines, a Kubernetes Secret in YAML, or Docker's ``config.json``.

    Raises:
        SecretFileProblem: the file is missing or has another format.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise SecretFileProblem(f"{path}: cannot be read; give a file with KEY=value lines to --secret NAME=FILE.") from None
    manifest = _manifest(text)
    if manifest is not None:
        return _from_manifest(path, manifest)
    if _is_docker_config(text):
        return {PULL_SECRET_KEY: text}
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, separator, value = line.strip().removeprefix("export ").partition("=")
        if not separator or not key:
            raise SecretFileProblem(f"{path}:{number}: not of the form KEY=value; correct the line.")
        found[key.strip()] = _unquoted(value.strip())
    return found


def _is_docker_config(text: str) -> bool:
    """Return whether a text is the file with registry logins that ``docker login`` and ``podman login`` write."""
    try:
        document = json.loads(text)
    except ValueError:
        return False
    return isinstance(document, dict) and isinstance(document.get("auths"), dict)


def _unquoted(value: str) -> str:
    """Return a value without the pair of quotes around it."""
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value


def _manifest(text: str) -> dict[str, Any] | None:
    """Return the Secret in a YAML text; ``None`` for any other text."""
    try:
        document = parse(text)
    except InvalidYAML:
        return None
    return document if isinstance(document, dict) and document.get("kind") == "Secret" else None


def _from_manifest(path: Path, document: dict[str, Any]) -> dict[str, str]:
    try:
        data = {key: base64.b64decode(value, validate=True).decode() for key, value in (document.get("data") or {}).items()}
        plain = dict((document.get("stringData") or {}).items())
    except (ValueError, TypeError, AttributeError):
        raise SecretFileProblem(f"{path}: not a valid Secret; data must contain UTF-8 text in base64.") from None
    wrong = next((key for key, value in plain.items() if not isinstance(value, str)), None)
    if wrong is not None:
        raise SecretFileProblem(f"{path}: stringData.{wrong} is not text; put its value in quotes.")
    return {**data, **plain}
