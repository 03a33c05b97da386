"""Secrets in local mode: from files that the user names, else from environment variables of the same keys. Never stored."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path

from finetune_operator.api.kubernetes_yaml import parse


class SecretFileProblem(ValueError):
    """A file of ``--secret`` cannot be used: the message says why, and never what is in it."""


class LocalSecrets:
    """Answers what a ``secretKeyRef`` asks: the key of the named file, or the environment variable of that name."""

    def __init__(self, files: Mapping[str, Path], environment: Mapping[str, str] = os.environ) -> None:
        self._files = {name: read_secret_file(path) for name, path in files.items()}
        self._environment = environment

    def __call__(self, name: str, key: str) -> str | None:
        """The value, ``None`` or empty where there is none."""
        if name in self._files:
            return self._files[name].get(key)
        return self._environment.get(key)


def read_secret_file(path: Path) -> dict[str, str]:
    """The keys of a secret file: ``KEY=value`` lines, or the YAML of a Kubernetes Secret.

    Raises:
        SecretFileProblem: it is missing or neither of both.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise SecretFileProblem(f"{path}: cannot be read; --secret takes NAME=FILE with KEY=value lines.") from None
    if "kind: Secret" in text:
        return _from_manifest(path, text)
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, separator, value = line.strip().removeprefix("export ").partition("=")
        if not separator or not key:
            raise SecretFileProblem(f"{path}:{number}: expected KEY=value.")
        found[key.strip()] = value.strip().strip("'\"")
    return found


def _from_manifest(path: Path, text: str) -> dict[str, str]:
    try:
        document = parse(text)
        data = {key: base64.b64decode(value, validate=True).decode() for key, value in (document.get("data") or {}).items()}
    except (ValueError, TypeError, AttributeError):
        raise SecretFileProblem(f"{path}: is no readable Secret: data must hold base64 of UTF-8 texts.") from None
    return {**data, **(document.get("stringData") or {})}
