"""A file behind http:// or https://, as a stream to disk."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from finetune_stages.kit import StageError
from finetune_stages.kit.fault import first_line
from finetune_stages.sources.meter import Meter
from finetune_stages.sources.origin import Origin
from finetune_stages.sources.uri import WebAddress

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 60.0
"""The server may not be silent for longer."""
_PASSING = {408, 425, 429}


def download(address: WebAddress, target: Path, origin: Origin, meter: Meter) -> None:
    """Fetch ``address`` into ``target``. No token is sent, whatever the environment holds.

    Raises:
        StageError: one of the reasons of ``origin``.
    """
    import httpx2

    try:
        with httpx2.stream(
            "GET", address.url, follow_redirects=True, timeout=httpx2.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            headers={"Accept-Encoding": "identity"},  # the file as it is: its digest may be stated
        ) as response:  # fmt: skip
            if not response.is_success:
                _refuse(response.status_code, address, origin)
            meter.total = int(response.headers.get("Content-Length", 0))
            with target.open("wb") as stream:
                for chunk in response.iter_bytes(1 << 20):
                    stream.write(chunk)
                    meter(len(chunk))
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise StageError(origin.not_found, f"{origin.field}: {address.shown} is no web address ({first_line(error)}).") from error
    except (httpx2.RequestError, httpx2.StreamError) as error:
        detail = first_line(error, 200) if str(error) else type(error).__name__
        raise StageError(origin.unreachable, f"{address.shown} did not answer as it should ({detail}).") from error


def _refuse(status: int, address: WebAddress, origin: Origin) -> NoReturn:
    if status in (401, 403):
        raise StageError(
            origin.forbidden,
            f"{address.shown} may not be read (status {status}); no token is sent there, so use a public address.",
        )
    if status >= 500 or status in _PASSING:
        raise StageError(origin.unreachable, f"{address.shown} answered with status {status}.")
    raise StageError(origin.not_found, f"{address.shown} does not exist (status {status}); correct {origin.field}.")
