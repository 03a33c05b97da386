"""A file behind http:// or https://, as a stream to disk, and whether it is still the same."""

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
"""The server must not be silent for longer."""
_TRANSIENT = {408, 425, 429}
_UNCOMPRESSED = {"Accept-Encoding": "identity"}
"""No compression: the file's digest may be stated."""


def download(address: WebAddress, target: Path, origin: Origin, counter: ProgressCounter) -> dict[str, Scalar]:
    """Fetch ``address`` into ``target``; returns by what the server can be asked for a change. No token is sent, whatever the
    environment holds.

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
        raise StageError(origin.not_found, f"{origin.field}: {address.shown} is no web address ({first_line(error)}).") from error
    except (httpx2.RequestError, httpx2.StreamError) as error:
        detail = first_line(error, 200) if str(error) else type(error).__name__
        raise StageError(origin.unreachable, f"{address.shown} did not answer as it should ({detail}).") from error


def is_unchanged(address: WebAddress, fingerprint: Mapping[str, Scalar]) -> bool:
    """Return whether the server says that the file is the one of which :func:`download` returned ``fingerprint``. Nothing of it is fetched."""
    import httpx2

    condition = {"If-None-Match": str(fingerprint["etag"])} if "etag" in fingerprint else {}
    try:
        with httpx2.stream(
            "GET", address.url, follow_redirects=True, timeout=CONNECT_SECONDS, headers={**_UNCOMPRESSED, **condition}
        ) as response:
            if response.status_code == httpx2.codes.NOT_MODIFIED:
                return bool(condition) and response.headers.get("ETag", fingerprint["etag"]) == fingerprint["etag"]
            # Many servers know no conditions: then what they say of the file tells as much, and its body is left unread.
            return response.is_success and bool(fingerprint) and validators(response.headers) == dict(fingerprint)
    except (httpx2.InvalidURL, httpx2.HTTPError, httpx2.StreamError):
        return False  # fetching it will say why


def validators(headers: Mapping[str, str]) -> dict[str, Scalar]:
    """Return what stands for every byte of a file (RFC 9110, section 8.8): a strong ETag, or else the time of its last change and its size.

    Such a time counts if the answer is at least a second younger than it (8.8.2.2): within one second a file can change twice.
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
            f"{address.shown} may not be read (status {status}); no token is sent there, so use a public address.",
        )
    if status >= 500 or status in _TRANSIENT:
        raise StageError(origin.unreachable, f"{address.shown} answered with status {status}.")
    raise StageError(origin.not_found, f"{address.shown} does not exist (status {status}); correct {origin.field}.")
