"""URIs that are hub ids by their form and files by what their author means, because ``./`` is missing.

Only the command line can see that a file of that name lies beside the YAML; the CRD's rules refuse names that end like a file's.
"""

from __future__ import annotations

from pathlib import Path

from finetune_contract.uris import is_local_path
from finetune_operator.core.paths import lookup

from .documents import Document

_FIELDS = ("spec.dataset.uri", "spec.dataset.evalUri", "spec.model.uri")
_MODEL_CONFIG = "config.json"


def bare_file_names(document: Document, base: Path, *, local: bool) -> dict[str, str]:
    """Return a sentence for each field whose URI is a hub id and the name of a file that exists.

    Args:
        document: a FineTuneRun.
        base: the directory that relative paths count from: that of the YAML.
        local: whether the run goes to this machine. A cluster cannot read the file.
    """
    found = {}
    for field in _FIELDS:
        uri = lookup(document.content, field)
        if isinstance(uri, str) and uri and "://" not in uri and not is_local_path(uri) and _names_a_file(field, uri, base):
            found[field] = _sentence(document, uri, local=local)
    return found


def _names_a_file(field: str, uri: str, base: Path) -> bool:
    """A file of data, or for a model a directory with its configuration."""
    try:
        path = base / uri.replace("\\", "/")
        return (path / _MODEL_CONFIG).is_file() if field == "spec.model.uri" else path.is_file()
    except (OSError, ValueError):  # too long for a path, or not one
        return False


def _sentence(document: Document, uri: str, *, local: bool) -> str:
    beside = "here" if document.is_standard_input else f"beside {Path(document.source).name}"
    path = uri.replace("\\", "/")
    local_path = path if path.startswith("/") or path[1:2] == ":" else f"./{path}"
    if local:
        return f"{uri} is a hub id, and the file {beside} is {local_path}; write {local_path}, or hf://{uri} for the hub"
    return (
        f"{uri} is a hub id, and a cluster cannot read the file {beside}; put it on the hub, or write hf://{uri} if it is there"
    )
