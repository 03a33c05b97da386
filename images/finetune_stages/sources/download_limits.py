"""Limits of downloads: the size that the operator's configuration sets, the least rate, and the size of responses in memory."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from finetune_contract import reasons
from finetune_contract.documents import DOWNLOAD_LIMIT_VARIABLE
from finetune_stages.sdk import StageError

from .origin import Origin

if TYPE_CHECKING:
    import httpx2

_SECONDS, _LEAST_BYTES = 300.0, 300 << 10
"""A download of fewer bytes in so many seconds, 1 KiB/s, has stalled. The timeout of a read does not end it: a byte now and then is read."""
_CALL_SECONDS = 120.0
"""Deadline of a response that is read into memory."""


class EndlessBody(Exception):
    """A response that is read into memory is too large or too slow. The text has the reason."""


def download_limit(environment: Mapping[str, str] = os.environ) -> int | None:
    """Return the largest size of a download in bytes; ``None`` if there is no limit."""
    value = environment.get(DOWNLOAD_LIMIT_VARIABLE)
    return int(value) if value else None


def require_size(size: int, origin: Origin, name: str, environment: Mapping[str, str] = os.environ) -> None:
    """Check the size in bytes of what is downloaded, or of what was received so far.

    Raises:
        StageError: ``DownloadTooLarge``.
    """
    limit = download_limit(environment)
    if limit is not None and size > limit:
        raise StageError(
            reasons.DOWNLOAD_TOO_LARGE,
            f"{origin.field}: {name} is larger than {limit:,} bytes; use a smaller {origin.what}, or have downloadLimits.{origin.repo_type} raised in"
            " the operator's configuration.",
        )


@dataclass
class Pace:
    """Check of the rate of a download."""

    origin: Origin
    name: str
    _bytes: int = 0
    _since: float = field(default_factory=time.monotonic)

    def at(self, done: int) -> None:
        """Take note of the number of bytes so far.

        Raises:
            StageError: ``origin.unreachable``: too few of them came in the last minutes.
        """
        now = time.monotonic()
        if done - self._bytes >= _LEAST_BYTES:
            self._bytes, self._since = done, now
        elif now - self._since > _SECONDS:
            raise StageError(
                self.origin.unreachable,
                f"{self.origin.field}: {self.name}: the download stalled: {done - self._bytes:,} bytes came in {_SECONDS:g} seconds.",
            )


def read_body(response: httpx2.Response, most: int) -> bytes:
    """Return the body of a response, not decompressed.

    Raises:
        EndlessBody: it has more than ``most`` bytes, or it does not end.
    """
    deadline, body = time.monotonic() + _CALL_SECONDS, bytearray()
    for chunk in response.iter_raw():
        body += chunk
        if len(body) > most:
            raise EndlessBody(f"is larger than {most >> 20} MiB")
        if time.monotonic() > deadline:
            raise EndlessBody(f"did not end within {_CALL_SECONDS:g} seconds")
    return bytes(body)
