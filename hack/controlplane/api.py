"""Client for set-up of a control plane and for tests as its administrator: plain HTTP, any kind of object."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

Object = dict[str, Any]

_MERGE_PATCH = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_MANAGER = "finetune-control-plane"


class RefusedError(RuntimeError):
    """The API server rejected a call."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"HTTP {code}: {message}")
        self.code = code


class Api:
    """An API server, accessed as one user. Calls are made one after the other over one connection."""

    def __init__(self, address: str, tls: ssl.SSLContext, *, timeout: float = 30.0) -> None:
        self.address = address
        self._connection = http.client.HTTPSConnection(urlsplit(address).netloc, context=tls, timeout=timeout)
        self._resources: dict[str, dict[str, Object]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        self._connection.close()

    def call(
        self, method: str, path: str, body: Object | None = None, *, content: str = "application/json", **query: str
    ) -> Object:
        """Make a request, and return the object in the response.

        Raises:
            RefusedError: the response is an error.
            OSError: there is no response.
        """
        headers = {"Accept": "application/json", "Content-Type": content}
        data = None if body is None else json.dumps(body).encode()
        target = f"{path}?{urlencode(query)}" if query else path
        try:
            try:
                response = self._ask(method, target, data, headers)
            except (http.client.RemoteDisconnected, BrokenPipeError):  # the server closed an idle connection
                self.close()
                response = self._ask(method, target, data, headers)
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise OSError(f"{method} {path}: {error!r}") from error
        if response.status >= 400:
            raise RefusedError(response.status, _message(text))
        answer: Object = json.loads(text) if text.startswith(b"{") else {"text": text.decode()}
        return answer

    def _ask(self, method: str, target: str, data: bytes | None, headers: dict[str, str]) -> http.client.HTTPResponse:
        self._connection.request(method, target, data, headers)
        return self._connection.getresponse()

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object:
        """Return an object."""
        return self.call("GET", self.path(api_version, kind, name, namespace))

    def list(self, api_version: str, kind: str, namespace: str | None = None) -> list[Object]:
        """Return all objects of a kind, in one namespace or in all."""
        items: list[Object] = self.call("GET", self.path(api_version, kind, None, namespace))["items"]
        return items

    def create(self, manifest: Object) -> Object:
        """Create an object; unknown fields are rejected."""
        return self.call("POST", self._path_of(manifest, named=False), manifest, fieldValidation="Strict")

    def apply(self, manifest: Object) -> Object:
        """Create or update an object with server-side apply."""
        return self.call("PATCH", self._path_of(manifest), manifest, content=_APPLY, fieldManager=_MANAGER, force="true")

    def patch(self, manifest: Object, patch: Object, subresource: str = "") -> Object:
        """Apply a merge patch to the object that ``manifest`` names."""
        path = self._path_of(manifest) + (f"/{subresource}" if subresource else "")
        return self.call("PATCH", path, patch, content=_MERGE_PATCH)

    def delete(self, manifest: Object) -> None:
        """Delete the object that ``manifest`` names; a missing object is no error."""
        try:
            self.call("DELETE", self._path_of(manifest))
        except RefusedError as error:
            if error.code != 404:
                raise

    def token(self, namespace: str, service_account: str, seconds: int = 3600) -> str:
        """Return a bearer token of a ServiceAccount."""
        path = self.path("v1", "ServiceAccount", service_account, namespace) + "/token"
        kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        token: str = self.call("POST", path, {**kind, "spec": {"expirationSeconds": seconds}})["status"]["token"]
        return token

    def path(self, api_version: str, kind: str, name: str | None = None, namespace: str | None = None) -> str:
        """Return the URL path of an object, or of all objects of a kind."""
        group = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        if kind not in self._resources.get(group, {}):
            listed = self.call("GET", group)["resources"]
            self._resources[group] = {one["kind"]: one for one in listed if "/" not in one["name"]}
        if kind not in self._resources[group]:
            raise RefusedError(404, f"the API server serves no {kind} of {api_version}")
        resource = self._resources[group][kind]
        parts = [group, *(["namespaces", namespace] if resource["namespaced"] and namespace else []), resource["name"], name]
        return "/".join(part for part in parts if part)

    def _path_of(self, manifest: Object, *, named: bool = True) -> str:
        metadata = manifest["metadata"]
        name = metadata["name"] if named else None
        return self.path(manifest["apiVersion"], manifest["kind"], name, metadata.get("namespace", "default"))


def eventually(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Wait until ``condition`` holds. An error of the API server or the connection counts as false.

    Raises:
        TimeoutError: it does not hold in time; the message has ``what``, and the last error.
    """
    deadline, last = time.monotonic() + seconds, ""
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (OSError, RefusedError) as error:
            last = f" ({error})"
        time.sleep(0.05)
    raise TimeoutError(f"{what}: not after {seconds:.0f} s{last}")


def _message(text: bytes) -> str:
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text[:500].decode(errors="replace")
