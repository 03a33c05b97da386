"""ConfigMaps that ``finetune run`` writes: those of ``--configmap NAME=PATH`` and of the run's file, and what they may replace."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from finetune_operator.api.kinds import CONFIGMAP, FINETUNERUN
from finetune_operator.core.naming import is_reserved
from finetune_operator.core.run import Run
from finetune_operator.loop.cluster import Cluster, Object
from finetune_operator.loop.errors import NotFound
from finetune_operator.loop.pager import list_all
from finetune_operator.validation import DEFAULTS
from finetune_operator.validation.config_map import SIZE_LIMIT, key_faults

from . import exit_status
from .errors import CommandError

_REFERENCES = ("taskFiles", "caRef", "configMap")
"""Fields of a spec whose ``name`` is that of a ConfigMap."""


def reject_reserved(name: str, source: str) -> None:
    """Raise an error for the name of a ConfigMap that the operator creates, or that changes all runs.

    Raises:
        CommandError: the name is reserved.
    """
    if is_reserved(name):
        raise CommandError([f"{source}: the name {name} of a ConfigMap is reserved for the operator; choose another name."])


def referenced_config_maps(value: Any) -> Iterator[str]:
    """Yield the name of each ConfigMap that a spec, or a part of it, references."""
    if isinstance(value, list):
        for one in value:
            yield from referenced_config_maps(one)
    elif isinstance(value, dict):
        for field, content in value.items():
            if field in _REFERENCES and isinstance(content, dict) and "name" in content:
                yield str(content["name"])
            yield from referenced_config_maps(content)


def reject_duplicates(config_maps: Sequence[Object], source: str) -> None:
    """Raise an error if two ConfigMaps have the same name: only the content of the last one would remain.

    Raises:
        CommandError: two have the same name.
    """
    names = [one["metadata"]["name"] for one in config_maps]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise CommandError([f"{source}: two ConfigMaps have the name {twice}; remove or rename one of them."])


async def reject_replacement(cluster: Cluster, config_maps: Sequence[Object], run_name: str) -> None:
    """Raise an error if a ConfigMap with other content is in use by a run that has not ended: its later stages would read the new content.

    Raises:
        CommandError: another run than ``run_name`` uses the ConfigMap.
    """
    replaced = {one["metadata"]["name"] for one in config_maps if await _is_replaced(cluster, one)}
    if not replaced:
        return
    async for document in list_all(cluster, FINETUNERUN, config_maps[0]["metadata"]["namespace"]):
        other = Run.parse(document)
        used = sorted(replaced.intersection(referenced_config_maps(document.get("spec"))))
        if used and other.name != run_name and not other.ended:
            raise CommandError(
                [
                    f"ConfigMap {used[0]}: the run {other.name}, which has not ended, uses it with other content; choose another name."
                ]
            )


async def _is_replaced(cluster: Cluster, config_map: Object) -> bool:
    """Return whether the ConfigMap exists with other content."""
    metadata = config_map["metadata"]
    try:
        present = await cluster.get(CONFIGMAP, metadata["namespace"], metadata["name"])
    except NotFound:
        return False
    return any((present.get(part) or {}) != (config_map.get(part) or {}) for part in ("data", "binaryData"))


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
