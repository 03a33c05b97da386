"""``--configmap NAME=PATH``: a ConfigMap from files, as ``kubectl create configmap --from-file`` makes it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.loop.cluster import Object

from . import exitcodes
from .errors import CommandError

_LIMIT = 1 << 20
"""Bytes that the API server lets a ConfigMap have."""


def config_maps(pairs: Sequence[str]) -> list[Object]:
    """The ConfigMaps that the options describe: of the files in a folder (not of those below it), or of one file.

    Raises:
        CommandError: an option has not that form, a file cannot be read, or they are too large together.
    """
    return [_config_map(pair) for pair in pairs]


def _config_map(pair: str) -> Object:
    name, separator, text = pair.partition("=")
    if not separator or not name or not text:
        raise CommandError([f"--configmap {pair}: expected NAME=FOLDER or NAME=FILE."], exitcodes.USAGE)
    backend = Path(text).expanduser()
    try:
        files = sorted(path for path in backend.iterdir() if path.is_file()) if backend.is_dir() else [backend]
        contents = {path.name: path.read_bytes() for path in files if not path.name.startswith(".")}
    except OSError as error:
        raise CommandError([f"--configmap {pair}: {error.filename or backend}: {error.strerror}."], exitcodes.NO_INPUT) from None
    size = sum(map(len, contents.values()))
    if not contents or size > _LIMIT:
        wrong = f"its files have {size:,} bytes; a ConfigMap holds {_LIMIT:,}" if contents else "there is no file in it"
        raise CommandError([f"--configmap {pair}: {wrong}."])
    found: Object = {"apiVersion": CONFIGMAP.api_version, "kind": CONFIGMAP.name, "metadata": {"name": name}}
    for key, content in contents.items():
        try:
            found.setdefault("data", {})[key] = content.decode()
        except UnicodeDecodeError:
            found.setdefault("binaryData", {})[key] = base64.b64encode(content).decode()
    return found
