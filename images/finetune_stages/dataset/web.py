"""Download of a file at a web address, and a check for changes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from finetune_contract import reasons
from finetune_contract.codec import digest
from finetune_contract.documents import HTTP_AUTHORIZATION_VARIABLE, Scalar
from finetune_contract.hosts import host_of, is_inside
from finetune_contract.uris import WebAddress
from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import AddressNotAllowed, first_line
from finetune_stages.sdk.hosts import require_allowed
from finetune_stages.sources.background import in_background
from finetune_stages.sources.download_limits import Pace, require_size
from finetune_stages.sources.downloads import CHUNK, PART, Dropped, RemoteFile, download_all
from finetune_stages.sources.http_faults import is_transient, network_fault
from finetune_stages.sources.origin import Origin
from finetune_stages.sources.progress import ProgressCounter
from finetune_stages.sources.trust import require_bundle

from .compressed import is_truncated

if TYPE_CHECKING:
    import httpx2

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 60.0
"""Timeout of a read."""
_UNCOMPRESSED = {"Accept-Encoding": "identity"}
"""No compression: dataset.sha256 is the digest of the file itself."""
_GZIP = ("gzip", "x-gzip")
"""Content encodings that are kept: many servers send them with a .gz file, and :mod:`.compressed` reads them, whole or not at all."""
_PLAIN = ("", "identity", "aws-chunked")
"""Content encodings of a body that is not compressed. Some S3 servers keep ``aws-chunked`` of the upload as metadata."""


def download(address: WebAddress, target: Path, origin: Origin, counter: ProgressCounter) -> dict[str, Scalar]:
    """Download ``address`` to ``target`` and return the validators that detect a change.

    A large file is downloaded in parallel ranges if the server supports them and identifies the content of the file.

    Raises:
        StageError: one of the reasons of ``origin``, ``DatasetChanged``, ``DatasetUntrusted``.
    """
    with _Client(address, origin) as client, client.errors(), client.get() as response:
        client.require_whole(response)
        found = validators(response.headers)
        size = response.headers.get("Content-Length", "")
        if not size.isdecimal():
            client.stream(response, target, counter)
            client.require_end_mark(response, target)
            return found
        content = _Content.of(response, found, int(size))
        resumable = content.condition if response.headers.get("Accept-Ranges") == "bytes" else ""
        first = None if resumable and int(size) > PART else response  # one range continues this response

        def read(start: int, end: int) -> Iterator[bytes]:
            nonlocal first
            present, first = first, None
            if present is not None and start == 0:
                yield from client.rest(present)
            elif resumable:
                yield from client.range(start, end, content)
            else:
                yield from client.again(content)

        identity = digest([address.url, resumable]) if resumable else None
        download_all([RemoteFile(int(size), identity, target, read)], counter, origin, address.shown)
        return found


def is_unchanged(address: WebAddress, fingerprint: Mapping[str, Scalar], origin: Origin) -> bool:
    """Return whether the server's file still has the validators ``fingerprint`` of :func:`download`. The file is not downloaded."""
    import httpx2

    condition = {"If-None-Match": str(fingerprint["etag"])} if "etag" in fingerprint else {}
    try:
        with _Client(address, origin) as client, client.get(condition) as response:
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


@dataclass(frozen=True)
class _Content:
    """What identifies the content that a download began with.

    Attributes:
        size: in bytes.
        condition: a strong validator for ``If-Range``; empty if the server sends none.
    """

    size: int
    encodings: tuple[str, ...]
    etag: str | None
    changed: str | None

    @classmethod
    def of(cls, response: httpx2.Response, found: Mapping[str, Scalar], size: int) -> Self:
        """Return the content of the first response, which has the validators ``found``."""
        etag, changed = (str(found[key]) if key in found else None for key in ("etag", "lastModified"))
        return cls(size, _encodings(response), etag, changed)

    @property
    def condition(self) -> str:
        """See the class."""
        return self.etag or self.changed or ""

    def is_in(self, response: httpx2.Response) -> bool:
        """Return whether a later response is about this content. A response to ``If-Range`` may leave ``Last-Modified`` out."""
        headers = response.headers
        return (
            (self.etag is None or headers.get("ETag", self.etag) == self.etag)
            and (self.changed is None or headers.get("Last-Modified", self.changed) == self.changed)
            and _encodings(response) == self.encodings
        )


@dataclass
class _Client:
    """Requests for one address. A context manager."""

    address: WebAddress
    origin: Origin

    def __enter__(self) -> Self:
        import httpx2

        # The library sends an Authorization header of the request to no other origin after a redirect.
        self._authorization = _authorization(self.address, self.origin)
        self._client = httpx2.Client(
            verify=require_bundle(self.origin), follow_redirects=True, headers=_UNCOMPRESSED, event_hooks={"request": [self._require_allowed]},
            timeout=httpx2.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _require_allowed(self, request: httpx2.Request) -> None:
        """Check the host of each request, also after a redirect."""
        require_allowed(str(request.url), "hosts", self.origin.field)

    @contextmanager
    def get(self, headers: Mapping[str, str] | None = None) -> Iterator[httpx2.Response]:
        """Send a GET request and return the response, whose body is not read yet."""
        with self._client.stream("GET", self.address.url, headers={**self._authorization, **(headers or {})}) as response:
            yield response

    def rest(self, response: httpx2.Response) -> Iterator[bytes]:
        """Yield the body of a response."""
        with self._drops():
            yield from response.iter_raw(CHUNK)

    def stream(self, response: httpx2.Response, target: Path, counter: ProgressCounter) -> None:
        """Write the body of a response whose size is unknown.

        Raises:
            StageError: ``DownloadTooLarge``; one of the reasons of the origin.
        """

        def write() -> None:
            with target.open("wb") as stream:
                for chunk in response.iter_raw():
                    require_size(stream.tell() + stream.write(chunk), self.origin, self.address.shown)

        pace = Pace(self.origin, self.address.shown)

        def watch() -> None:
            counter.at(response.num_bytes_downloaded)
            pace.at(response.num_bytes_downloaded)

        in_background(write, watch)

    def range(self, start: int, end: int, content: _Content) -> Iterator[bytes]:
        """Yield a range of the file.

        Raises:
            Dropped: the connection ended, or the server is busy.
            StageError: ``DatasetChanged``: the server has another file now.
        """
        import httpx2

        with self._drops(), self.get({"Range": f"bytes={start}-{end - 1}", "If-Range": content.condition}) as response:
            self.require_success(response)
            # Caches exist that ignore If-Range, so the headers of each range are compared.
            place = response.headers.get("Content-Range", "")
            expected = [f"bytes {start}-{end - 1}/{total}" for total in (content.size, "*")]
            if response.status_code != httpx2.codes.PARTIAL_CONTENT or place not in expected or not content.is_in(response):
                raise self._changed()
            yield from response.iter_raw(CHUNK)

    def again(self, content: _Content) -> Iterator[bytes]:
        """Yield the whole file from its beginning.

        Raises:
            Dropped: the connection ended, or the server is busy.
            StageError: ``DatasetChanged``: the server has another file now.
        """
        with self._drops(), self.get() as response:
            self.require_whole(response)
            if response.headers.get("Content-Length") != str(content.size) or not content.is_in(response):
                raise self._changed()
            yield from response.iter_raw(CHUNK)

    def _changed(self) -> StageError:
        return StageError(
            reasons.DATASET_CHANGED,
            f"{self.origin.field}: {self.address.shown} changed while it was downloaded; rerun when no process writes to it.",
        )

    def require_whole(self, response: httpx2.Response) -> None:
        """Check that a response to a request without a range has the whole file, in a form that this release reads.

        Raises:
            StageError: one of the reasons of the origin; ``DatasetUnreadable``: it is compressed by another method than gzip.
        """
        import httpx2

        self.require_success(response)
        start = f"{self.origin.field}: {self.address.shown}"
        if response.status_code == httpx2.codes.PARTIAL_CONTENT:
            place = response.headers.get("Content-Range", "no Content-Range")[:80]
            raise StageError(self.origin.unreachable, f"{start} sent only a part of the file ({place}).")
        other = next((encoding for encoding in _encodings(response) if encoding not in _GZIP), None)
        if other:
            raise StageError(
                reasons.DATASET_UNREADABLE,
                f"{start} is sent with Content-Encoding {other[:80]}, which this release does not read; serve the file without it.",
            )

    def require_end_mark(self, response: httpx2.Response, target: Path) -> None:
        """Check that a compressed body is complete if only the end of the connection ends it.

        Raises:
            StageError: ``origin.unreachable``.
        """
        if "Transfer-Encoding" not in response.headers and is_truncated(target):
            raise StageError(
                self.origin.unreachable,
                f"{self.origin.field}: {self.address.shown}: the connection ended before the end of the compressed file.",
            )

    def require_success(self, response: httpx2.Response) -> None:
        """Check the status of a response.

        Raises:
            StageError: one of the reasons of the origin.
        """
        status, start = response.status_code, f"{self.origin.field}: {self.address.shown}"
        if response.is_success:
            return
        if status in (401, 403):
            raise StageError(self.origin.forbidden, f"{start} {self._denial(status)}.")
        if is_transient(status):
            raise StageError(self.origin.unreachable, f"{start} responded with status {status}.")
        if response.is_redirect:
            raise StageError(self.origin.not_found, f"{start} redirects without a target (status {status}); correct the address.")
        raise StageError(self.origin.not_found, f"{start} does not exist (status {status}); correct the address.")

    def _denial(self, status: int) -> str:
        if self._authorization:
            return f"rejects the login in {HTTP_AUTHORIZATION_VARIABLE} (status {status}); correct it in the Secret of dataset.secretRef"
        return (
            f"requires a login (status {status}); set dataset.secretRef to a Secret with {HTTP_AUTHORIZATION_VARIABLE}, or use a public"
            " address"
        )

    @contextmanager
    def _drops(self) -> Iterator[None]:
        """Raise errors that another connection can repair as :class:`Dropped`."""
        try:
            with self.errors():
                yield
        except StageError as fault:
            if fault.reason is self.origin.unreachable:
                raise Dropped(fault) from fault
            raise

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise errors of the library inside as :class:`StageError`."""
        import httpx2

        start = f"{self.origin.field}: {self.address.shown}"
        try:
            yield
        except AddressNotAllowed as error:
            raise error.of(start) from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise StageError(
                self.origin.not_found, f"{start} is not a web address ({first_line(error)}); write https://<host>/<file>."
            ) from error
        except httpx2.TooManyRedirects as error:
            raise StageError(self.origin.not_found, f"{start} redirects without an end; correct the address.") from error
        except (httpx2.RequestError, httpx2.StreamError) as error:
            raise network_fault(error, self.origin, start) from error


def _encodings(response: httpx2.Response) -> tuple[str, ...]:
    """Return the methods by which the body is compressed."""
    stated = (each.strip().lower() for each in response.headers.get("Content-Encoding", "").split(","))
    return tuple(each for each in stated if each not in _PLAIN)


def _authorization(address: WebAddress, origin: Origin) -> dict[str, str]:
    """Return the header with the login in the stage's environment, if there is one.

    Raises:
        StageError: ``origin.forbidden``: the login would be sent unencrypted, or it is not a header.
    """
    value = os.environ.get(HTTP_AUTHORIZATION_VARIABLE, "").strip()  # secret files often end with a newline
    if not value:
        return {}
    if not (value.isascii() and value.isprintable()):
        raise StageError(
            origin.forbidden,
            f"dataset.secretRef: {HTTP_AUTHORIZATION_VARIABLE} has characters that are invalid in a header; store one line of ASCII.",
        )
    if urlsplit(address.url).scheme == "http" and not is_inside(host_of(address.url)):
        raise StageError(
            origin.forbidden,
            f"{origin.field}: {address.shown} would receive {HTTP_AUTHORIZATION_VARIABLE} unencrypted; use https://, or a Secret without it.",
        )
    return {"Authorization": value}
