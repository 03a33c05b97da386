"""Download of a file at a web address, and a check for changes."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NoReturn

from finetune_contract.documents import Scalar
from finetune_contract.uris import WebAddress
from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import first_line
from finetune_stages.sources.origin import Origin
from finetune_stages.sources.progress import ProgressCounter

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 60.0
"""Timeout of a read."""
_TRANSIENT = {408, 425, 429}
_UNCOMPRESSED = {"Accept-Encoding": "identity"}
"""No compression: dataset.sha256 is the digest of the file itself."""


def download(address: WebAddress, target: Path, origin: Origin, counter: ProgressCounter) -> dict[str, Scalar]:
    """Download ``address`` to ``target`` and return the validators that detect a change. No token is sent.

    Raises:
        StageError: one of the reasons of ``origin``.
    """
    import httpx2

    try:
        with httpx2.stream(
            "GET", address.url, follow_redirects=True, timeout=httpx2.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            headers=_UNCOMPRESSED,
        ) as response:  # fmt: skip
            if not response.is_success:
                _raise_for_status(response.status_code, address, origin)
            counter.total = int(response.headers.get("Content-Length", 0))
            with target.open("wb") as stream:
                for chunk in response.iter_bytes(1 << 20):
                    stream.write(chunk)
                    counter(len(chunk))
            return validators(response.headers)
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise StageError(
            origin.not_found,
            f"{origin.field}: {address.shown} is not a web address ({first_line(error)}); write https://<host>/<file>.",
        ) from error
    except (httpx2.RequestError, httpx2.StreamError) as error:
        detail = first_line(error, 200) if str(error) else type(error).__name__
        raise StageError(
            origin.unreachable, f"{origin.field}: {address.shown} is unreachable or sent an invalid response ({detail})."
        ) from error


def is_unchanged(address: WebAddress, fingerprint: Mapping[str, Scalar]) -> bool:
    """Return whether the server's file still has the validators ``fingerprint`` of :func:`download`. The file is not downloaded."""
    import httpx2

    condition = {"If-None-Match": str(fingerprint["etag"])} if "etag" in fingerprint else {}
    try:
        with httpx2.stream(
            "GET", address.url, follow_redirects=True, timeout=CONNECT_SECONDS, headers={**_UNCOMPRESSED, **condition}
        ) as response:
            if response.status_code == httpx2.codes.NOT_MODIFIED:
                return bool(condition) and response.headers.get("ETag", fingerprint["etag"]) == fingerprint["etag"]
            # Many servers ignore conditions: then the response's validators are compared, and its body is not read.
            return response.is_success and bool(fingerprint) and validators(response.headers) == dict(fingerprint)
    except (httpx2.InvalidURL, httpx2.HTTPError, httpx2.StreamError):
        return False  # the download will report the error


def validators(headers: Mapping[str, str]) -> dict[str, Scalar]:
    """Return the strong validators of a response (RFC 9110, section 8.8): an ETag, or else the time of the last change and the size.

    That time is strong if the response is at least a second newer (section 8.8.2.2): a file can change twice within a second.
    """
    etag, changed, size = headers.get("ETag", ""), headers.get("Last-Modified", ""), headers.get("Content-Length", "")
    if etag.startswith('"'):
        return {"etag": etag}
    try:
        age = parsedate_to_datetime(headers.get("Date", "")) - parsedate_to_datetime(changed)
    except ValueError:
        return {}
    return {"lastModified": changed, "size": size} if size and age.total_seconds() >= 1 else {}


def _raise_for_status(status: int, address: WebAddress, origin: Origin) -> NoReturn:
    if status in (401, 403):
        raise StageError(
            origin.forbidden,
            f"{origin.field}: {address.shown} requires a login (status {status}), and no token is sent; use a public address.",
        )
    if status >= 500 or status in _TRANSIENT:
        raise StageError(origin.unreachable, f"{origin.field}: {address.shown} responded with status {status}.")
    raise StageError(origin.not_found, f"{origin.field}: {address.shown} does not exist (status {status}); correct the address.")
