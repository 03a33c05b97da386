"""URIs of data sets and models.

The rule is that of the resource: a local path begins with ``/``, ``./``, ``../``, ``~/`` or ``file://``; any other bare string
is a hub id. The id of a data set ends at the first ``:``, what follows names its configuration (as in the OpenShift AI
pipelines: ``LipengCS/Table-GPT:All``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from finetune_contract import reasons
from finetune_stages.kit import StageError

from .origin import Origin

_LOCAL = ("/", "./", "../", "~/")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HUB_ID = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?", re.ASCII)


@dataclass(frozen=True)
class LocalPath:
    """A file or a directory of this machine, absolute."""

    path: Path


@dataclass(frozen=True)
class WebAddress:
    """A file behind ``http://`` or ``https://``."""

    url: str

    @property
    def shown(self) -> str:
        """The address for messages: without credentials and without the query, which may hold a signature."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


@dataclass(frozen=True)
class HubId:
    """A repository of the Hugging Face hub, or of the one that ``HF_ENDPOINT`` names."""

    id: str
    config: str | None = None


def parse_uri(uri: str, origin: Origin) -> LocalPath | WebAddress | HubId:
    """What ``uri`` names.

    Raises:
        StageError: it names nothing (``origin.not_found``), or a kind of place that this release does not read (``BadDocument``).
    """
    uri = uri.strip()
    if _CONTROL.search(uri):
        raise StageError(origin.not_found, f"{origin.field}: {uri!r} has a control character; remove it.")
    scheme, separator, rest = uri.partition("://")
    if not separator:
        if uri.startswith(_LOCAL):
            return LocalPath(Path(uri).expanduser().absolute())
        return _hub_id(uri, origin)
    match scheme:
        case "hf":
            return _hub_id(rest, origin)
        case "http" | "https":
            return _web(uri, origin)
        case "file":
            return _file(uri, origin)
    raise StageError(
        reasons.BAD_DOCUMENT,
        f"{origin.field}: this release does not read {scheme}://; use hf://, https:// or a file that the stage can see.",
    )


def _hub_id(text: str, origin: Origin) -> HubId:
    name, _, config = text.partition(":")
    if not _HUB_ID.fullmatch(name) or (config and not origin.has_configurations):
        raise StageError(
            origin.not_found,
            f"{origin.field}: {text!r} is no hub id (name or owner/name); a local path begins with /, ./, ../ or ~/.",
        )
    return HubId(name, config or None)


def _web(uri: str, origin: Origin) -> WebAddress:
    try:
        parts = urlsplit(uri)
        known = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a malformed IPv6 address, or a port that is none
        known = False
    if not known:
        raise StageError(origin.not_found, f"{origin.field}: {uri} names no host; write https://<host>/<file>.")
    return WebAddress(uri)


def _file(uri: str, origin: Origin) -> LocalPath:
    parts = urlsplit(uri)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/"):
        raise StageError(
            origin.not_found, f"{origin.field}: {uri} is no absolute file URI; write file:///folder/file with three slashes."
        )
    return LocalPath(Path(path))
