"""``--configmap NAME=PATH``: a ConfigMap from files, as from ``kubectl create configmap --from-file``."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.core.naming import is_reserved
from finetune_operator.loop.cluster import Object
from finetune_operator.validation import DEFAULTS
from finetune_operator.validation.config_map import SIZE_LIMIT, key_faults

from . import exit_status
from .errors import CommandError


def reject_reserved(name: str, source: str) -> None:
    """Raise an error for the name of a ConfigMap that the operator creates, or that changes all runs.

    Raises:
        CommandError: the name is reserved.
    """
    if is_reserved(name):
        raise CommandError([f"{source}: the name {name} of a ConfigMap is reserved for the operator; choose another name."])


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
    if name != DEFAULTS:
        reject_reserved(name, f"--configmap {pair}")
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
    if not contents or size > SIZE_LIMIT:
        wrong = (
            f"{size:,} bytes are more than a ConfigMap can hold ({SIZE_LIMIT:,}); remove files"
            if contents
            else "contains no files; add files"
        )
        raise CommandError([f"--configmap {pair}: {wrong}."])
    wrong_key = next((key for key in contents if key_faults(key)), None)
    if wrong_key is not None:
        raise CommandError(
            [
                f"--configmap {pair}: the file name {wrong_key!a} is not a key of a ConfigMap; use letters, digits, '-', '_' and '.'."
            ]
        )
    found: Object = {"apiVersion": CONFIGMAP.api_version, "kind": CONFIGMAP.name, "metadata": {"name": name}}
    for key, content in contents.items():
        try:
            found.setdefault("data", {})[key] = content.decode()
        except UnicodeDecodeError:
            found.setdefault("binaryData", {})[key] = base64.b64encode(content).decode()
    return found
