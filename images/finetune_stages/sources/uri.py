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
from finetune_stages.sdk import StageError

from .origin import Origin

_LOCAL = ("/", "./", "../", "~/")
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
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


def shown(uri: str) -> str:
    """Return a URI, well formed or not, for messages: without credentials, and without a query or fragment, which may hold a signature.

    The URI is not parsed, because the errors of a parser quote what it cannot read. Where a slash or a question mark inside of a
    password hides where the credentials end, only the scheme is left.
    """
    if uri.startswith(_LOCAL):
        return uri
    scheme, separator, rest = uri.partition("://")
    if not separator:
        scheme, rest = "", uri
    place = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, slash, path = place.partition("/")
    _, at, host = authority.rpartition("@")
    hidden = "..." if len(place) < len(rest) else ""
    if not at and ":" in authority and "@" in rest:
        return f"{scheme}{separator}..."
    return f"{scheme}{separator}{host}{slash}{path}{hidden}"


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
    _require_characters(uri, origin)
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return _local(uri, origin) if uri.startswith(_LOCAL) else _hub_id(uri, origin)
    match scheme:
        case "hf":
            return _hub_id(rest, origin)
        case "http" | "https":
            return _web_address(uri, origin)
        case "file":
            return _file(uri, origin)
    raise StageError(
        reasons.BAD_DOCUMENT,
        f"{origin.field}: this release does not read {scheme}://; use hf://, https:// or a file that the stage can see.",
    )


def _require_characters(text: str, origin: Origin) -> None:
    """No name of a file or of a host has a control character, or half of a surrogate pair."""
    if _UNUSABLE.search(text):
        raise StageError(
            origin.not_found, f"{origin.field}: {shown(text)!a} has a control character or half of a character; remove it."
        )


def _local(uri: str, origin: Origin) -> LocalPath:
    try:
        return LocalPath(Path(uri).expanduser().absolute())
    except RuntimeError as error:
        raise StageError(
            origin.not_found,
            f"{origin.field}: {uri} is relative to a home directory, and this user has none; write an absolute path.",
        ) from error


def _web_address(uri: str, origin: Origin) -> WebAddress:
    try:
        parts = urlsplit(uri)
        problem = "it names no host" if not parts.hostname else "it names port 0" if parts.port == 0 else None
    except ValueError:  # whose text may quote a password
        problem = "its host or port is malformed"
    if problem:
        raise StageError(
            origin.not_found, f"{origin.field}: {shown(uri)} is no web address: {problem}; write https://<host>/<file>."
        )
    return WebAddress(uri)


def _hub_id(text: str, origin: Origin) -> HubId:
    name, _, config = text.partition(":")
    if not _HUB_ID.fullmatch(name) or (config and not origin.has_configurations):
        raise StageError(
            origin.not_found,
            f"{origin.field}: {shown(text)!r} is no hub id (name or owner/name); a local path begins with /, ./, ../ or ~/.",
        )
    return HubId(name, config or None)


def _file(uri: str, origin: Origin) -> LocalPath:
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise StageError(
            origin.not_found, f"{origin.field}: {shown(uri)} is no file URI: its host is malformed; write file:///folder/file."
        ) from error
    path = unquote(parts.path)
    _require_characters(path, origin)
    if parts.netloc not in ("", "localhost") or not path.startswith("/"):
        raise StageError(
            origin.not_found,
            f"{origin.field}: {shown(uri)} is no absolute file URI; write file:///folder/file with three slashes.",
        )
    return LocalPath(Path(path))
