"""JSON over HTTP with a registry, with a deadline per call and stage errors.

httpx2 is used instead of a registry's client library, because the stage decides which calls are retried (:func:`.registry.again`).
"""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from finetune_contract import reasons, strict_json
from finetune_contract.documents import REGISTRY_CA_VARIABLE, REGISTRY_HOST_VARIABLE, REGISTRY_TOKEN_VARIABLE
from finetune_contract.hosts import allowed_hosts, host_of, matches, may_receive_token
from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import AddressNotAllowed, causes, first_line, one_line
from finetune_stages.sdk.hosts import require_allowed

from .registry import AlreadyExists, Unanswered, settled

if TYPE_CHECKING:
    import httpx2

CONNECT_SECONDS = 10.0
CALL_SECONDS = 30.0
"""Deadline of a call, including its response body."""
_LARGEST_ANSWER = 64 << 20
_LARGEST_DETAIL = 1 << 20
_NOT_NOW = {408, 425, 429}
_TOKEN = re.compile(r"[!-~]+")


class Missing(StageError):
    """Status 404: the object does not exist."""

    def __init__(self, url: str, detail: str) -> None:
        super().__init__(
            reasons.REGISTRY_REJECTED,
            f"registry.address: {url} does not exist{detail}; correct the address, or check whether the object was deleted.",
        )


@dataclass(frozen=True)
class Access:
    """Access to a registry: its URL, the bearer token and the file of the CA bundle, if any."""

    address: str
    token: str | None = None
    ca: Path | None = None

    @classmethod
    def of(cls, address: str, environment: Mapping[str, str] = os.environ) -> Access:
        """Return the access to ``address`` from the stage's environment.

        Raises:
            StageError: ``RegistryForbidden``, ``RegistryUntrusted``: the token or the bundle is invalid; ``TokenNotSent``,
                ``HostNotAllowed``: the address must not get the token, or must not be contacted.
        """
        token = environment.get(REGISTRY_TOKEN_VARIABLE, "").strip()  # secret files often end with a newline
        if token and not _TOKEN.fullmatch(token):
            raise StageError(
                reasons.REGISTRY_FORBIDDEN,
                f"registry.secretRef: {REGISTRY_TOKEN_VARIABLE} has characters that are invalid in a token; store only the token in the Secret.",
            )
        bundle = environment.get(REGISTRY_CA_VARIABLE)
        access = cls(address.rstrip("/"), token or None, Path(bundle) if bundle else None)
        require_allowed(address, "registries", "registry.address", environment)
        if token:
            _require_recipient(address, environment)
        access.tls()
        if token and urlsplit(address).scheme == "http":
            print(f"registration: warning: {access.address} is not an https:// address; the token is sent unencrypted")
        return access

    def tls(self) -> ssl.SSLContext:
        """Return a TLS context that trusts the bundle, or the system's certificates without one.

        Raises:
            StageError: ``RegistryUntrusted``.
        """
        try:
            return ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        except (OSError, ssl.SSLError) as error:
            raise StageError(
                reasons.REGISTRY_UNTRUSTED,
                f"registry.caRef: {self.ca} has no certificates in PEM format ({first_line(error)}); correct the bundle.",
            ) from error


def _require_recipient(address: str, environment: Mapping[str, str]) -> None:
    """Reject an address that must not receive the token."""
    bound, host = environment.get(REGISTRY_HOST_VARIABLE, "").strip(), host_of(address)
    if bound and not matches(host, [bound]):
        raise StageError(
            reasons.TOKEN_NOT_SENT,
            f"registry.address: {host} is not {bound}, to which {REGISTRY_HOST_VARIABLE} in the Secret binds the token; correct the address, or use"
            " another Secret.",
        )
    if not may_receive_token(address, allowed_hosts(environment)):
        raise StageError(
            reasons.TOKEN_NOT_SENT,
            f"registry.address: {address} would receive the token unencrypted; use https:// or a Service of the cluster (<name>.<namespace>.svc).",
        )


class Rest:
    """Client for one address. A context manager."""

    def __init__(self, access: Access) -> None:
        import httpx2

        self.access = access
        headers = {"Accept": "application/json", **({"Authorization": f"Bearer {access.token}"} if access.token else {})}
        with self._faults():
            self._client = httpx2.Client(
                base_url=access.address, headers=headers, verify=access.tls(), follow_redirects=False,
                timeout=httpx2.Timeout(CALL_SECONDS, connect=CONNECT_SECONDS),
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._client.close()

    def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """GET ``path``; see :meth:`call`."""
        return self.call("GET", path, query=query)

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, query: Mapping[str, str | int] | None = None
    ) -> dict[str, Any]:
        """Return the JSON object in the registry's response, and retry while it is unreachable.

        An earlier POST may have succeeded: then a unique name raises :class:`AlreadyExists`.

        Raises:
            Missing: status 404.
            AlreadyExists: status 409.
            StageError: ``RegistryForbidden``, ``RegistryRejected``, ``RegistryUnreachable``, ``RegistryUntrusted``.
        """
        return settled(lambda: self._call(method, path, body, query))

    def _call(self, method: str, path: str, body: dict[str, Any] | None, query: Mapping[str, str | int] | None) -> dict[str, Any]:
        with self._faults():
            deadline = time.monotonic() + CALL_SECONDS
            with self._client.stream(method, path, json=body, params=query or None) as response:
                content = _read(response, deadline)
            return self._answer(response, content)

    def _answer(self, response: httpx2.Response, content: bytes) -> dict[str, Any]:
        status, detail = response.status_code, _detail(content)
        if status == 404:
            raise Missing(str(response.url.copy_with(query=None)), detail)
        if status == 409:
            raise AlreadyExists(f"{response.url.path}{detail}")
        if response.is_redirect:
            raise self._unexpected(f"redirects ({urlsplit(response.headers.get('Location', '')).netloc or 'another path'})")
        if status in (401, 403):
            raise self._forbidden(status, detail)
        if status >= 500 or status in _NOT_NOW:
            raise Unanswered(
                f"registry.address: {self.access.address} responded with status {status}{detail}.", _seconds(response)
            )
        if not response.is_success:
            raise StageError(reasons.REGISTRY_REJECTED, f"The registry rejected the entry with status {status}{detail}.")
        try:
            answer = strict_json.loads(content, _LARGEST_ANSWER)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            kind = response.headers.get("Content-Type", "no content type").partition(";")[0]
            raise self._unexpected(f"responds with {kind} instead of JSON")
        return answer

    def _unexpected(self, what: str) -> StageError:
        return StageError(
            reasons.REGISTRY_REJECTED, f"registry.address: {self.access.address} {what}; set the address of the registry's API."
        )

    def _forbidden(self, status: int, detail: str) -> StageError:
        fix = "check the token in registry.secretRef and its permissions"
        if self.access.token is None:
            fix = f"add {REGISTRY_TOKEN_VARIABLE} to the Secret in registry.secretRef"
        return StageError(
            reasons.REGISTRY_FORBIDDEN,
            f"registry.address: {self.access.address} denied access with status {status}{detail}; {fix}.",
        )

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Raise errors of the network and the library as stage errors."""
        import httpx2

        try:
            yield
        except AddressNotAllowed as error:
            raise error.of(f"registry.address: {self.access.address}") from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise self._unexpected(f"is not a web address ({first_line(error)})") from error
        except (httpx2.RequestError, httpx2.StreamError, TimeoutError) as error:
            untrusted = next((link for link in causes(error) if isinstance(link, ssl.SSLCertVerificationError)), None)
            if untrusted:
                raise StageError(
                    reasons.REGISTRY_UNTRUSTED,
                    f"registry.address: the certificate of {self.access.address} is not trusted ({untrusted.verify_message}); set its CA bundle in"
                    " registry.caRef.",
                ) from error
            detail = first_line(error, 200) if str(error) else type(error).__name__
            raise Unanswered(f"registry.address: {self.access.address} is unreachable ({detail}).") from error


def _read(response: httpx2.Response, deadline: float) -> bytes:
    """Return the whole body before the deadline. httpx2's timeouts apply to single reads only."""
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {CALL_SECONDS:g} seconds")
        if len(content) > _LARGEST_ANSWER:
            raise TimeoutError("its response does not end")
    return bytes(content)


def _detail(content: bytes) -> str:
    """Return the registry's error message in parentheses; empty if the response is not JSON."""
    try:
        answer = strict_json.loads(content, _LARGEST_DETAIL)
        words = str(answer.get("message") or answer.get("error") or "")
    except (ValueError, AttributeError):
        words = ""
    return f" ({one_line(words, 300)})" if words else ""


def _seconds(response: httpx2.Response) -> float:
    """Return Retry-After in seconds; 0 if it is not a number."""
    try:
        return float(response.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0
