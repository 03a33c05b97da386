"""Secrets in local mode, from the files of ``--secret``, else from environment variables. They are never stored."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path

from finetune_operator.api.kubernetes_yaml import parse


class SecretFileProblem(ValueError):
    """A file of ``--secret`` cannot be used; the message has the reason and never the content."""


class LocalSecrets:
    """Resolves a ``secretKeyRef``: the key of the given file, else the environment variable with the name of the key."""

    def __init__(self, files: Mapping[str, Path], environment: Mapping[str, str] = os.environ) -> None:
        self._files = {name: read_secret_file(path) for name, path in files.items()}
        self._environment = environment

    def __call__(self, name: str, key: str) -> str | None:
        """Return the value; ``None`` or empty if there is none."""
        if name in self._files:
            return self._files[name].get(key)
        return self._environment.get(key)


def read_secret_file(path: Path) -> dict[str, str]:
    """Return the keys of a secret file: ``KEY=value`` lines, or a Kubernetes Secret in YAML.

    Raises:
        SecretFileProblem: the file is missing or has another format.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise SecretFileProblem(f"{path}: cannot be read; give a file with KEY=value lines to --secret NAME=FILE.") from None
    if "kind: Secret" in text:
        return _from_manifest(path, text)
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, separator, value = line.strip().removeprefix("export ").partition("=")
        if not separator or not key:
            raise SecretFileProblem(f"{path}:{number}: not of the form KEY=value; correct the line.")
        found[key.strip()] = value.strip().strip("'\"")
    return found


def _from_manifest(path: Path, text: str) -> dict[str, str]:
    try:
        document = parse(text)
        data = {key: base64.b64decode(value, validate=True).decode() for key, value in (document.get("data") or {}).items()}
    except (ValueError, TypeError, AttributeError):
        raise SecretFileProblem(f"{path}: not a valid Secret; data must contain UTF-8 text in base64.") from None
    return {**data, **(document.get("stringData") or {})}
