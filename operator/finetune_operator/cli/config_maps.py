"""``--configmap NAME=PATH``: a ConfigMap from files, as from ``kubectl create configmap --from-file``."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.loop.cluster import Object

from . import exit_status
from .errors import CommandError

_LIMIT = 1 << 20
"""Largest size of a ConfigMap, in bytes, that the API server accepts."""


def config_maps(pairs: Sequence[str]) -> list[Object]:
    """Return the ConfigMaps of the options, each from one file or from the files directly in a folder.

    Raises:
        CommandError: an option is malformed, a file cannot be read, or the files of a ConfigMap are too large.
    """
    return [_config_map(pair) for pair in pairs]


def _config_map(pair: str) -> Object:
    name, separator, text = pair.partition("=")
    if not separator or not name or not text:
        raise CommandError([f"--configmap {pair}: not of the form NAME=PATH; give a file or a folder."], exit_status.USAGE)
    path = Path(text).expanduser()
    try:
        files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        contents = {file.name: file.read_bytes() for file in files if not file.name.startswith(".")}
    except OSError as error:
        raise CommandError(
            [f"--configmap {pair}: {error.filename or path}: {error.strerror}; give a readable file or folder."],
            exit_status.NO_INPUT,
        ) from None
    size = sum(map(len, contents.values()))
    if not contents or size > _LIMIT:
        wrong = (
            f"{size:,} bytes are more than a ConfigMap can hold ({_LIMIT:,}); remove files"
            if contents
            else "contains no files; add files"
        )
        raise CommandError([f"--configmap {pair}: {wrong}."])
    found: Object = {"apiVersion": CONFIGMAP.api_version, "kind": CONFIGMAP.name, "metadata": {"name": name}}
    for key, content in contents.items():
        try:
            found.setdefault("data", {})[key] = content.decode()
        except UnicodeDecodeError:
            found.setdefault("binaryData", {})[key] = base64.b64encode(content).decode()
    return found
