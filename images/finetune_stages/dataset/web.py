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
from finetune_stages.sources.meter import Meter
from finetune_stages.sources.origin import Origin

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 60.0
"""The server must not be silent for longer."""
_PASSING = {408, 425, 429}
_AS_IT_IS = {"Accept-Encoding": "identity"}
"""No compression: the file's digest may be stated."""


def download(address: WebAddress, target: Path, origin: Origin, meter: Meter) -> dict[str, Scalar]:
    """Fetch ``address`` into ``target``; returns by what the server can be asked for a change. No token is sent, whatever the
    environment holds.

    Raises:
        StageError: one of the reasons of ``origin``.
    """
    import httpx2

    try:
        with httpx2.stream(
            "GET", address.url, follow_redirects=True, timeout=httpx2.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            headers=_AS_IT_IS,
        ) as response:  # fmt: skip
            if not response.is_success:
                _refuse(response.status_code, address, origin)
            meter.total = int(response.headers.get("Content-Length", 0))
            with target.open("wb") as stream:
                for chunk in response.iter_bytes(1 << 20):
                    stream.write(chunk)
                    meter(len(chunk))
            return validators(response.headers)
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise StageError(origin.not_found, f"{origin.field}: {address.shown} is no web address ({first_line(error)}).") from error
    except (httpx2.RequestError, httpx2.StreamError) as error:
        detail = first_line(error, 200) if str(error) else type(error).__name__
        raise StageError(origin.unreachable, f"{address.shown} did not answer as it should ({detail}).") from error


def is_still(address: WebAddress, noted: Mapping[str, Scalar]) -> bool:
    """Return whether the server says that the file is the one of which :func:`download` returned ``noted``. Nothing of it is fetched."""
    import httpx2

    condition = {"If-None-Match": str(noted["etag"])} if "etag" in noted else {}
    try:
        with httpx2.stream(
            "GET", address.url, follow_redirects=True, timeout=CONNECT_SECONDS, headers={**_AS_IT_IS, **condition}
        ) as response:
            if response.status_code == httpx2.codes.NOT_MODIFIED:
                return bool(condition) and response.headers.get("ETag", noted["etag"]) == noted["etag"]
            # Many servers know no conditions: then what they say of the file tells as much, and its body is left unread.
            return response.is_success and bool(noted) and validators(response.headers) == dict(noted)
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


def _refuse(status: int, address: WebAddress, origin: Origin) -> NoReturn:
    if status in (401, 403):
        raise StageError(
            origin.forbidden,
            f"{address.shown} may not be read (status {status}); no token is sent there, so use a public address.",
        )
    if status >= 500 or status in _PASSING:
        raise StageError(origin.unreachable, f"{address.shown} answered with status {status}.")
    raise StageError(origin.not_found, f"{address.shown} does not exist (status {status}); correct {origin.field}.")
