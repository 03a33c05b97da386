"""Pull side of the OCI distribution specification: manifests, and blobs in ranges, with the registry's token protocol."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from finetune_contract import strict_json
from finetune_contract.hosts import host_of, is_loopback
from finetune_contract.uris import DOCKER_HUB, DOCKER_HUB_HOST, ImageReference
from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import AddressNotAllowed, first_line
from finetune_stages.sdk.hosts import require_allowed

from .download_limits import EndlessBody, read_body
from .downloads import CHUNK, Dropped
from .http_faults import is_transient, network_fault
from .origin import Origin
from .registry_login import Login
from .trust import require_bundle

if TYPE_CHECKING:
    import httpx2

INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
LARGEST_MANIFEST = 4 << 20
"""The size in bytes that the specification requires registries to accept."""
_LARGEST_TOKEN = 1 << 20
_CONNECT_SECONDS, _SILENCE_SECONDS = 10.0, 60.0
_ASK = "ask the administrator of the registry to correct its configuration, or use another registry"
_PARAMETER = re.compile(r'(?<!\w)(\w++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s,"]++))')


class Registry:
    """A client for the repository of one image. A context manager.

    Its methods raise ``StageError`` with one of the reasons of ``origin``.
    """

    def __init__(self, image: ImageReference, login: Login, origin: Origin) -> None:
        self._image, self._login, self._origin = image, login, origin
        self._start = f"{origin.field}: {image.shown}"
        self._named = f"https://{image.registry}"
        scheme = "http" if is_loopback(host_of(f"//{image.registry}")) else "https"  # as in container engines
        host = DOCKER_HUB_HOST if image.registry == DOCKER_HUB else image.registry
        repository = image.repository
        if host == DOCKER_HUB_HOST and "/" not in repository:
            repository = f"library/{repository}"
        self.server = f"{scheme}://{host}"
        self._base = f"{self.server}/v2/{repository}"
        self._scope = f"repository:{repository}:pull"
        self._authorization = f"Bearer {login.bearer}" if login.bearer else ""
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        import httpx2

        # The library sends an Authorization header of the request to no other origin after a redirect.
        self._client = httpx2.Client(
            verify=require_bundle(self._origin), follow_redirects=True, headers={"Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS), event_hooks={"request": [self._require_allowed]},
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def _require_allowed(self, request: httpx2.Request) -> None:
        """Check the host of each request: the registry, its server for tokens, and where it redirects to."""
        url = self._named if str(request.url).startswith(f"{self.server}/") else str(request.url)
        require_allowed(url, "images", self._origin.field)

    def manifest(self, reference: str) -> tuple[str, dict[str, Any]]:
        """Return digest and content of a manifest or an index; ``reference`` is a tag or a digest."""
        accepted = {"Accept": ", ".join((*INDEXES, *MANIFESTS))}
        with self.errors(), self._get(f"{self._base}/manifests/{reference}", accepted) as response:
            self._require_success(response, reference)
            body = self._body(response, LARGEST_MANIFEST, "its manifest")
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if reference.startswith("sha256:") and digest != reference:
            raise StageError(
                self._origin.unreachable,
                f"{self._start}: the download is damaged: the manifest {reference} that {self.server} sent has the digest {digest}.",
            )
        try:
            content = strict_json.loads(body, LARGEST_MANIFEST)
        except ValueError as error:
            raise self._invalid("its manifest is not JSON") from error
        if not isinstance(content, dict):
            raise self._invalid("its manifest is not a JSON object")
        return digest, content

    def read(self, digest: str, first: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of a blob from ``first`` up to ``end``.

        Raises:
            Dropped: the connection ended, or the registry is busy.
        """
        import httpx2

        left = end - first
        try:
            with self.errors(), self._get(f"{self._base}/blobs/{digest}", {"Range": f"bytes={first}-{end - 1}"}) as response:
                self._require_success(response, digest)
                # A registry without ranges sends the whole blob; its content is that of the digest all the same.
                skipped = first if response.status_code == httpx2.codes.OK else 0
                for part in _section(response.iter_raw(CHUNK), skipped, left):
                    left -= len(part)
                    yield part
        except StageError as fault:
            if fault.reason is self._origin.unreachable:
                raise Dropped(fault) from fault
            raise
        if left:
            raise Dropped(StageError(self._origin.unreachable, f"{self._start}: {self.server} sent only a part of {digest}."))

    @contextmanager
    def _get(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
        """Send a request, and once more with a new token if the registry requires one."""
        sent = self._authorization
        with self._client.stream("GET", url, headers={**headers, **self._header(sent)}) as response:
            if response.status_code != 401 or not self._renew(response, sent):
                yield response
                return
        with self._client.stream("GET", url, headers={**headers, **self._header(self._authorization)}) as response:
            yield response

    @staticmethod
    def _header(value: str) -> dict[str, str]:
        return {"Authorization": value} if value else {}

    def _renew(self, response: httpx2.Response, sent: str) -> bool:
        """Get what the challenge of a response asks for and return whether there is something new to send."""
        with self._lock:
            if self._authorization != sent:  # another thread has renewed it
                return True
            scheme, _, rest = response.headers.get("WWW-Authenticate", "").partition(" ")
            parameters = {name.lower(): quoted or bare for name, quoted, bare in _PARAMETER.findall(rest)}
            if scheme.lower() == "basic" and self._login.user:
                self._authorization = self._login.basic
            elif scheme.lower() == "bearer" and parameters.get("realm"):
                self._authorization = f"Bearer {self._token(parameters)}"
            return self._authorization != sent

    def _token(self, challenge: Mapping[str, str]) -> str:
        """Return a token from the server that a challenge names (https://distribution.github.io/distribution/spec/auth/token/)."""
        realm, service = challenge["realm"], challenge.get("service", "")
        address = urlsplit(realm)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise self._invalid(f"the registry names {realm!r} as the address for tokens", _ASK)
        if address.scheme == "http" and self._login.exists and not is_loopback(address.hostname):
            raise StageError(
                self._origin.forbidden,
                f"{self._start}: the pull secret would be sent to {address.netloc} unencrypted; use a registry whose tokens come from https://.",
            )
        query = {"service": service, "scope": challenge.get("scope") or self._scope}
        if self._login.identity_token:
            form = {**query, "grant_type": "refresh_token", "client_id": "finetune", "refresh_token": self._login.identity_token}
            request = self._client.stream("POST", realm, data=form, follow_redirects=False)  # the body has the refresh token
        else:
            header = self._header(self._login.basic if self._login.user else "")
            request = self._client.stream(
                "GET", realm, params={name: value for name, value in query.items() if value}, headers=header
            )
        with request as response:
            self._require_success(response, "token")
            body = self._body(response, _LARGEST_TOKEN, f"the token of {address.netloc}")
        try:
            content = strict_json.loads(body, _LARGEST_TOKEN)
            token = content.get("token") or content.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not token:
            raise self._invalid(f"{address.netloc} sent no token", _ASK)
        return token

    def _body(self, response: httpx2.Response, most: int, what: str) -> bytes:
        try:
            return read_body(response, most)
        except EndlessBody as error:
            raise self._invalid(f"{what} {error}") from error

    def _require_success(self, response: httpx2.Response, wanted: str) -> None:
        status = response.status_code
        if response.is_success:
            return
        if status in (401, 403):
            raise StageError(self._origin.forbidden, f"{self._start}: {self._denial(status)}.")
        if is_transient(status):
            raise StageError(self._origin.unreachable, f"{self._start}: {self.server} responded with status {status}.")
        if status == 416:
            raise self._invalid(f"{wanted} is smaller than the manifest states")
        if status == 404:
            raise StageError(self._origin.not_found, f"{self._start}: {self._missing(wanted)}.")
        raise StageError(
            self._origin.not_found,
            f"{self._start}: {self.server} rejected the request with status {status}; correct {self._origin.field}.",
        )

    def _missing(self, wanted: str) -> str:
        if wanted == self._image.tag:
            return f"{self.server} has no repository {self._image.repository} with the tag {wanted}; correct {self._origin.field}"
        if wanted == "token":
            return f"the server for tokens of {self.server} does not exist at its address; {_ASK}"
        if wanted == self._image.digest:
            return f"{self.server} has no such image in {self._image.repository}; correct the digest"
        return f"{self.server} has no {wanted}, which the image refers to; push the image again"

    def _denial(self, status: int) -> str:
        field = f"{self._origin.repo_type}.pullSecretRef"
        if self._login.exists:
            return (
                f"{self._image.registry} denies access with the credentials of the pull secret (status {status}); correct them in the Secret of"
                f" {field}, or allow their owner to pull the image"
            )
        if self._login.others is not None:
            names = ", ".join(self._login.others) or "no registry"
            return (
                f"{self._image.registry} denies access (status {status}), and the pull secret has credentials for {names} only; add them for"
                f" {self._image.registry}"
            )
        return (
            f"{self._image.registry} denies access without credentials, or the image does not exist (status {status}); set {field}, or"
            f" correct {self._origin.field}"
        )

    def _invalid(self, words: str, remedy: str = "push the image again, or use another registry") -> StageError:
        return StageError(self._origin.not_found, f"{self._start}: {words}; {remedy}.")

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise errors of the library inside as ``StageError``."""
        import httpx2

        try:
            yield
        except AddressNotAllowed as error:
            raise error.of(self._start) from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.TooManyRedirects) as error:
            raise self._invalid(
                f"{self.server} redirects to an address that cannot be used ({first_line(error, 200)})", _ASK
            ) from error
        except (httpx2.RequestError, httpx2.StreamError) as error:
            raise network_fault(error, self._origin, f"{self._start}: {self.server}") from error


def _section(chunks: Iterator[bytes], skipped: int, size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes of a stream after the first ``skipped`` ones."""
    for chunk in chunks:
        part = chunk[skipped : skipped + size] if skipped else chunk[:size]
        skipped = max(0, skipped - len(chunk))
        size -= len(part)
        if part:
            yield part
        if size <= 0:
            return
