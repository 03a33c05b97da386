"""JSON over HTTP with a registry: every call has a deadline, and every fault is one sentence.

httpx2 and no client library of one registry: the stage decides itself what may be asked twice (:func:`.registry.again`).
"""

from __future__ import annotations

import json
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

from finetune_contract import reasons
from finetune_contract.documents import REGISTRY_CA_VARIABLE, REGISTRY_TOKEN_VARIABLE
from finetune_stages.sdk import StageError
from finetune_stages.sdk.fault import causes, first_line

from .registry import AlreadyExists, Unanswered, settled

if TYPE_CHECKING:
    import httpx2

CONNECT_SECONDS = 10.0
CALL_SECONDS = 30.0
"""So long a call may take, its answer read to the end."""
_LARGEST_ANSWER = 64 << 20
_NOT_NOW = {408, 425, 429}
_TOKEN = re.compile(r"[!-~]+")


class Missing(StageError):
    """Status 404: there is no such thing at that path."""

    def __init__(self, url: str, said: str) -> None:
        super().__init__(
            reasons.REGISTRY_REFUSED, f"registry.address: there is nothing at {url}{said}; somebody may have deleted it."
        )


@dataclass(frozen=True)
class Access:
    """How a registry is spoken to: its URL, the bearer token and the file of the CA bundle, if any."""

    address: str
    token: str | None = None
    ca: Path | None = None

    @classmethod
    def of(cls, address: str, environment: Mapping[str, str] = os.environ) -> Access:
        """Return what the stage's environment gives for ``address``.

        Raises:
            StageError: ``RegistryForbidden``, ``RegistryUntrusted``: the token or the bundle cannot be used.
        """
        token = environment.get(REGISTRY_TOKEN_VARIABLE, "").strip()  # files of secrets like to end with a newline
        if token and not _TOKEN.fullmatch(token):
            raise StageError(
                reasons.REGISTRY_FORBIDDEN,
                f"{REGISTRY_TOKEN_VARIABLE} holds characters that no token has; write the token alone into registry.secretRef.",
            )
        bundle = environment.get(REGISTRY_CA_VARIABLE)
        access = cls(address.rstrip("/"), token or None, Path(bundle) if bundle else None)
        access.tls()
        if token and urlsplit(address).scheme == "http":
            print(f"registration: {access.address} is no https:// address: the token travels in the clear")
        return access

    def tls(self) -> ssl.SSLContext:
        """Return which certificates are trusted: the bundle's, and without one those of the system.

        Raises:
            StageError: ``RegistryUntrusted``.
        """
        try:
            return ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        except (OSError, ssl.SSLError) as error:
            raise StageError(
                reasons.REGISTRY_UNTRUSTED, f"registry.caRef: {self.ca} holds no certificates in PEM form ({first_line(error)})."
            ) from error


class Rest:
    """Calls below one address. A context manager."""

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
        """Return the JSON object that the registry answers with; tried again while it does not answer.

        A POST may have been carried out before: of what has a unique name, :class:`AlreadyExists` says so.

        Raises:
            Missing: status 404.
            Taken: status 409.
            StageError: ``RegistryForbidden``, ``RegistryRefused``, ``RegistryUnreachable``, ``RegistryUntrusted``.
        """
        return settled(lambda: self._call(method, path, body, query))

    def _call(self, method: str, path: str, body: dict[str, Any] | None, query: Mapping[str, str | int] | None) -> dict[str, Any]:
        with self._faults():
            deadline = time.monotonic() + CALL_SECONDS
            with self._client.stream(method, path, json=body, params=query or None) as response:
                content = _read(response, deadline)
            return self._answer(response, content)

    def _answer(self, response: httpx2.Response, content: bytes) -> dict[str, Any]:
        status, said = response.status_code, _said(content)
        if status == 404:
            raise Missing(str(response.url.copy_with(query=None)), said)
        if status == 409:
            raise AlreadyExists(f"{response.url.path}{said}")
        if response.is_redirect:
            raise self._refused(f"sends elsewhere ({urlsplit(response.headers.get('Location', '')).netloc or 'another path'})")
        if status in (401, 403):
            raise self._forbidden(status, said)
        if status >= 500 or status in _NOT_NOW:
            raise Unanswered(f"{self.access.address} answered with status {status}{said}.", _seconds(response))
        if not response.is_success:
            raise StageError(reasons.REGISTRY_REFUSED, f"The registry refused the entry with status {status}{said}.")
        try:
            answer = json.loads(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            kind = response.headers.get("Content-Type", "no content type").partition(";")[0]
            raise self._refused(f"answers with {kind} in place of JSON")
        return answer

    def _refused(self, what: str) -> StageError:
        return StageError(
            reasons.REGISTRY_REFUSED, f"registry.address: {self.access.address} {what}; give the address of the registry's API."
        )

    def _forbidden(self, status: int, said: str) -> StageError:
        mend = "check the token in registry.secretRef and its owner's rights"
        if self.access.token is None:
            mend = f"put {REGISTRY_TOKEN_VARIABLE} into registry.secretRef"
        return StageError(
            reasons.REGISTRY_FORBIDDEN, f"{self.access.address} refused the call with status {status}{said}; {mend}."
        )

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """What the network and the library say, as a sentence."""
        import httpx2

        try:
            yield
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise self._refused(f"is no web address ({first_line(error)})") from error
        except (httpx2.RequestError, httpx2.StreamError, TimeoutError) as error:
            untrusted = next((link for link in causes(error) if isinstance(link, ssl.SSLCertVerificationError)), None)
            if untrusted:
                raise StageError(
                    reasons.REGISTRY_UNTRUSTED,
                    f"The certificate of {self.access.address} is not trusted ({untrusted.verify_message}); put its CA bundle into"
                    " registry.caRef.",
                ) from error
            detail = first_line(error, 200) if str(error) else type(error).__name__
            raise Unanswered(f"{self.access.address} did not answer ({detail}).") from error


def _read(response: httpx2.Response, deadline: float) -> bytes:
    """Return the whole body. httpx2's own limits hold between two bytes, and a slow server may send many."""
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {CALL_SECONDS:g} seconds")
        if len(content) > _LARGEST_ANSWER:
            raise TimeoutError("its answer has no end")
    return bytes(content)


def _said(content: bytes) -> str:
    """Return the registry's own words in an answer that is no success, in brackets; nothing where it is a page or a text."""
    try:
        answer = json.loads(content)
        words = str(answer.get("message") or answer.get("error") or "")
    except (ValueError, AttributeError):
        words = ""
    return f" ({' '.join(words.split())[:300]})" if words else ""


def _seconds(response: httpx2.Response) -> float:
    """Retry-After, where it is a number."""
    try:
        return float(response.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0
