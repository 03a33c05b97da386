"""Finds URIs that have the form of a hub ID and also name an existing file: ``./`` is probably missing.

The command line can check for the file; the CRD can only reject names with a file extension.
"""

from __future__ import annotations

from pathlib import Path

from finetune_contract.uris import is_local_path
from finetune_operator.core.paths import lookup

from .documents import Document

_FIELDS = ("spec.dataset.uri", "spec.dataset.evalUri", "spec.model.uri")
_MODEL_CONFIG = "config.json"


def bare_file_names(document: Document, base: Path, *, local: bool) -> dict[str, str]:
    """Return a message for each field whose URI is a hub ID and also names an existing file.

    Args:
        document: a FineTuneRun.
        base: the directory that relative paths count from: that of the YAML.
        local: whether the run is for this machine. A cluster cannot read the file.
    """
    found = {}
    for field in _FIELDS:
        uri = lookup(document.content, field)
        if isinstance(uri, str) and uri and "://" not in uri and not is_local_path(uri) and _names_a_file(field, uri, base):
            found[field] = _sentence(document, uri, local=local)
    return found


def _names_a_file(field: str, uri: str, base: Path) -> bool:
    """Return whether ``uri`` is a file, or for a model a directory with a configuration."""
    try:
        path = base / uri.replace("\\", "/")
        return (path / _MODEL_CONFIG).is_file() if field == "spec.model.uri" else path.is_file()
    except (OSError, ValueError):  # too long for a path, or not one
        return False


def _sentence(document: Document, uri: str, *, local: bool) -> str:
    where = "the working directory" if document.is_standard_input else f"the directory of {Path(document.source).name}"
    path = uri.replace("\\", "/")
    local_path = path if path.startswith("/") or path[1:2] == ":" else f"./{path}"
    if local:
        return f"{uri} means a hub ID, but {where} has a file of this name; write {local_path} for the file or hf://{uri} for the hub"
    return (
        f"{uri} means a hub ID, but {where} has a file of this name, which a cluster cannot read;"
        f" upload the file to the hub, or write hf://{uri} if it is there"
    )
