"""URIs of datasets and models as the stages read them: parsed, with local paths made absolute and errors as reasons."""

from __future__ import annotations

from pathlib import Path

from finetune_contract import uris
from finetune_contract.uris import ClaimPath, HubId, ImageReference, LocalPath, S3Location, WebAddress
from finetune_stages.sdk import StageError

from .origin import Origin

SourceUri = Path | WebAddress | HubId | S3Location | ClaimPath | ImageReference


def parse_uri(uri: str, origin: Origin) -> SourceUri:
    """Return what ``uri`` refers to; a local path is absolute.

    Raises:
        StageError: ``origin.not_found``: the URI is malformed.
    """
    try:
        parsed = uris.parse_uri(uri, origin.repo_type)
    except uris.UriError as error:
        raise StageError(origin.not_found, f"{origin.field}: {error}.") from error
    return _absolute(parsed.path, origin) if isinstance(parsed, LocalPath) else parsed


def _absolute(path: str, origin: Origin) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise StageError(
            origin.not_found,
            f"{origin.field}: {path} is relative to a home directory, and this user has none; write an absolute path.",
        ) from error
