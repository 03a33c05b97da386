"""Kubeflow Model Registry's REST API at an address of this machine, for our stage program and for the real ``model-registry`` client.

Written from the server's OpenAPI document and source (2026-04), and compared with that server: paths, camelCase JSON, typed custom
properties, names that are unique within their parent, a search by name that compares as SQL's ``LIKE`` does, ``PATCH`` that replaces
the whole map of custom properties, pages with tokens, and no way to delete anything::

    with ModelRegistryServer(serves=("v1alpha3",), token="secret") as server:
        server.trouble("cut", after=3)  # the fourth call is carried out, and its answer lost
        ...
        assert [version["name"] for version in server.versions("my-model")] == ["1.0.0"]

:class:`TroubledServer` is the part that breaks on demand; it serves for other registries too.
"""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
Kind = Literal["status", "html", "redirect", "refuse", "cut", "slow", "trickle", "call"]


@dataclass
class Trouble:
    """What happens to ``times`` calls whose path has ``text``, after the next ``after`` such ones; one trouble comes after the other.

    ``status``: that status in place of an answer, with ``headers``. ``html``: status 200 and a page. ``redirect``: to another host.
    ``reject``: the connection is closed and nothing done. ``cut``: the call is carried out, then the connection closed. ``slow``: the
    answer comes ``seconds`` late. ``call``: the call is carried out, then ``then`` called, and the connection closed.
    """

    kind: Kind
    text: str = ""
    after: int = 0
    times: int = 1
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    then: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Call:
    """A call as it arrived; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """A status and what goes with it. ``pause``: seconds before each byte of the body."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    pause: float = 0.0


class TroubledServer:
    """An HTTP server, over TLS if it is given a certificate and key, that records calls and breaks on demand.

    It listens at the address ``host``, which is this machine's own.
    """

    def __init__(self, certificate: Path | None = None, host: str = "127.0.0.1") -> None:
        self.calls: list[Call] = []
        self._troubles: list[Trouble] = []
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer((host, 0), _handler(self))
        self._http.daemon_threads = True
        self._scheme = "http"
        if certificate:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
            self._scheme = "https"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """``http://<host>:<port>``."""
        host, port = self._http.server_address[:2]
        return f"{self._scheme}://{host!s}:{port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def trouble(self, kind: Kind, **how: Any) -> Trouble:
        """Let a later call fail; see :class:`Trouble`."""
        trouble = Trouble(kind, **how)
        with self._lock:
            self._troubles.append(trouble)
        return trouble

    def peace(self) -> None:
        """Forget every trouble, and the calls so far."""
        with self._lock:
            self._troubles.clear()
            self.calls.clear()

    def writes(self) -> list[str]:
        """The calls so far that change something, as ``POST registered_models``."""
        return [f"{call.method} {_short(call.path)}" for call in self.calls if call.method != "GET"]

    def answer(self, call: Call) -> Answer:
        """The answer when nothing is to go wrong."""
        raise NotImplementedError

    def rejection(self, status: int, message: str) -> Answer:
        """Return the answer with ``status`` of a server without messages of its own."""
        return Answer(status, message.encode(), {"Content-Type": "text/plain"})

    def handle(self, call: Call) -> Answer | None:
        """The answer, or ``None`` where the connection is to be closed without one."""
        with self._lock:
            self.calls.append(call)
            trouble = self._next_trouble(call)
        if trouble is None:
            return self.answer(call)
        if trouble.kind == "status":
            return replace(self.rejection(trouble.status, "so it was ordered"), headers=dict(trouble.headers))
        if trouble.kind == "html":
            return Answer(200, b"<!doctype html><html><body>Log in</body></html>", {"Content-Type": "text/html; charset=utf-8"})
        if trouble.kind == "redirect":
            return Answer(302, b"", {"Location": "https://login.example/oauth?state=hidden"})
        if trouble.kind == "slow":
            time.sleep(trouble.seconds)
            return self.answer(call)
        if trouble.kind == "trickle":
            return replace(self.answer(call), pause=trouble.seconds)
        if trouble.kind != "refuse":
            self.answer(call)
            trouble.then()
        return None

    def _next_trouble(self, call: Call) -> Trouble | None:
        trouble = next((trouble for trouble in self._troubles if trouble.times > 0), None)
        if trouble is None or trouble.text not in call.path:
            return None
        if trouble.after > 0:
            trouble.after -= 1
            return None
        trouble.times -= 1
        return trouble


class ModelRegistryServer(TroubledServer):
    """The registry. ``serves`` names the API versions that it knows; with a ``token`` it requires that one."""

    def __init__(
        self,
        serves: Sequence[str] = ("v1",),
        token: str | None = None,
        certificate: Path | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__(certificate, host)
        self._serves, self._token = serves, token
        self._entities: dict[str, list[Json]] = {"registered_models": [], "model_versions": [], "model_artifacts": []}
        self._storing = threading.Lock()

    def models(self) -> list[Json]:
        """The registered models, the oldest first."""
        return list(self._entities["registered_models"])

    def versions(self, model: str) -> list[Json]:
        """The versions of a model."""
        ids = [one["id"] for one in self.models() if one["name"] == model]
        return [version for version in self._entities["model_versions"] if version["registeredModelId"] in ids]

    def artifacts(self, version: Json) -> list[Json]:
        """The artifacts of a version."""
        return [_shown(one) for one in self._entities["model_artifacts"] if one["_parent"] == version["id"]]

    def rejection(self, status: int, message: str) -> Answer:
        return Answer(status, _error(status, message))

    def answer(self, call: Call) -> Answer:
        parts = urlsplit(call.path)
        found = re.fullmatch(r"/api/model_registry/([^/]+)/(.+)", parts.path)
        if self._token and call.headers.get("authorization") != f"Bearer {self._token}":
            return Answer(401, b"Unauthorized\n", {"Content-Type": "text/plain"})
        if not found or found[1] not in self._serves:
            return Answer(404, b"404 page not found\n", {"Content-Type": "text/plain"})
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        try:
            body = json.loads(call.body) if call.body else {}
            with self._storing:
                status, answer = self._route(call.method, found[2].split("/"), query, body)
        except _Rejection as rejection:
            status, answer = rejection.status, json.loads(_error(rejection.status, str(rejection)))
        return Answer(status, json.dumps(answer).encode())

    def _route(self, method: str, path: list[str], query: Mapping[str, str], body: Json) -> tuple[int, Json]:
        match method, path:
            case "GET", ["registered_model" | "model_version" | "model_artifact" as kind]:
                return 200, self._find(f"{kind}s", query)
            case "GET", ["registered_models" | "model_versions" | "model_artifacts" as kind]:
                return 200, _page(self._entities[kind], query)
            case "GET" | "PATCH", ["registered_models" | "model_versions" | "model_artifacts" as kind, key]:
                entity = self._get(kind, key)
                return 200, _shown(entity if method == "GET" else _change(kind, entity, body))
            case "POST", ["registered_models"]:
                return 201, self._add("registered_models", body, None)
            case "POST", ["model_versions"]:
                return 201, self._add("model_versions", body, body.get("registeredModelId"))
            case "GET", ["registered_models", key, "versions"]:
                return 200, _page([one for one in self._entities["model_versions"] if one["registeredModelId"] == key], query)
            case "POST", ["registered_models", key, "versions"]:
                return 201, self._add("model_versions", {**body, "registeredModelId": key}, key)
            case "GET", ["model_versions", key, "artifacts"]:
                return 200, _page([one for one in self._entities["model_artifacts"] if one["_parent"] == key], query)
            case "POST", ["model_versions", key, "artifacts"]:
                return 201, self._add("model_artifacts", body, self._get("model_versions", key)["id"])
        raise _Rejection(404, f"no route {method} {'/'.join(path)}")

    def _find(self, kind: str, query: Mapping[str, str]) -> Json:
        """One entity by its name or external id. Several that the name's pattern fits count as none, as on the server."""
        parent = query.get("parentResourceId")
        found = [
            entity
            for entity in self._entities[kind]
            if parent in (None, entity["_parent"])
            and (_like(query["name"], entity["name"]) if "name" in query else entity.get("externalId") == query.get("externalId"))
        ]
        if len(found) != 1:
            raise _Rejection(404, f"{'multiple' if found else 'no'} {kind} found for {dict(query)}")
        return _shown(found[0])

    def _get(self, kind: str, key: str) -> Json:
        for entity in self._entities[kind]:
            if entity["id"] == key:
                return entity
        raise _Rejection(404, f"no {kind} found for id {key}")

    def _add(self, kind: str, body: Json, parent: str | None) -> Json:
        if not body.get("name"):
            raise _Rejection(422, "required field 'name' is zero value.")
        if any(one["name"] == body["name"] and one["_parent"] == parent for one in self._entities[kind]):
            raise _Rejection(409, f"{kind} with name {body['name']} already exists: conflict")
        _require_known(kind, body)
        now = str(int(1000 * time.time()))
        contexts = [kind] if kind == "model_artifacts" else ["registered_models", "model_versions"]
        key = str(1 + sum(len(self._entities[one]) for one in contexts))
        entity = {"customProperties": {}, **body, "_parent": parent, "id": key, "createTimeSinceEpoch": now}
        entity["lastUpdateTimeSinceEpoch"] = now
        if kind != "model_artifacts":
            entity.setdefault("state", "LIVE")
        self._entities[kind].append(entity)
        return _shown(entity)


class _Rejection(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


_BASE = {"name", "description", "externalId", "customProperties", "state"}
_FIELDS = {
    "registered_models": _BASE | {"owner", "readme", "maturity", "language", "tasks", "provider", "logo", "license", "licenseLink",
                                  "libraryName"},
    "model_versions": _BASE | {"author", "registeredModelId"},
    "model_artifacts": _BASE | {"artifactType", "uri", "modelFormatName", "modelFormatVersion", "storageKey", "storagePath",
                                "serviceAccountName", "modelSourceKind", "modelSourceClass", "modelSourceGroup", "modelSourceId",
                                "modelSourceName"},
}  # fmt: skip
_STATES = {
    "registered_models": {"LIVE", "ARCHIVED"}, "model_versions": {"LIVE", "ARCHIVED"},
    "model_artifacts": {"UNKNOWN", "PENDING", "LIVE", "MARKED_FOR_DELETION", "DELETED", "ABANDONED", "REFERENCE"},
}  # fmt: skip
_VALUES = {
    "MetadataStringValue": ("string_value", str), "MetadataIntValue": ("int_value", str),
    "MetadataDoubleValue": ("double_value", (int, float)), "MetadataBoolValue": ("bool_value", bool),
}  # fmt: skip


def _require_known(kind: str, body: Json) -> None:
    """The server rejects fields, states and typed values that its document does not have."""
    unknown = {key for key in body if body[key] is not None} - _FIELDS[kind] - {"id"}
    if unknown:
        raise _Rejection(400, f"json: unknown field {min(unknown)!r}")
    if body.get("state") not in {None, *_STATES[kind]}:
        raise _Rejection(400, f"invalid value {body['state']!r} for state")
    for key, value in (body.get("customProperties") or {}).items():
        name, types = _VALUES.get(value.get("metadataType"), ("", ()))
        if set(value) != {"metadataType", name} or not isinstance(value[name], types):
            raise _Rejection(400, f"metadataType not found for {key}: {value}")
        if name == "int_value" and not re.fullmatch(r"-?([1-9][0-9]{0,8}|0)", value[name]):
            raise _Rejection(400, f"unable to decode as int32 for key {key}")


def _change(kind: str, entity: Json, body: Json) -> Json:
    """``PATCH``: fields that are given; name and parent stay; the map of custom properties is replaced as a whole."""
    _require_known(kind, body)
    entity.update({key: value for key, value in body.items() if value is not None and key not in ("id", "name")})
    entity["lastUpdateTimeSinceEpoch"] = str(int(1000 * time.time()))
    return entity


def _page(entities: Sequence[Json], query: Mapping[str, str]) -> Json:
    size = int(query.get("pageSize", "0"))
    start = int(query.get("nextPageToken", "0"))
    ordered = sorted(entities, key=lambda entity: int(entity["id"]), reverse=query.get("sortOrder") == "DESC")
    items = ordered[start : start + size] if size else ordered
    more = str(start + size) if size and start + size < len(ordered) else ""
    return {"items": [_shown(one) for one in items], "nextPageToken": more, "pageSize": size, "size": len(items)}


def _like(pattern: str, name: str) -> bool:
    """SQL's LIKE: ``_`` is any character and ``%`` any text."""
    wanted = "".join({"_": ".", "%": ".*"}.get(character, re.escape(character)) for character in pattern)
    return re.fullmatch(wanted, name, re.DOTALL) is not None


def _shown(entity: Json) -> Json:
    return {key: value for key, value in entity.items() if not key.startswith("_")}


def _error(status: int, message: str) -> bytes:
    return json.dumps({"code": str(status), "message": message}).encode()


def _short(path: str) -> str:
    return re.sub(r"^/api/(model_registry/[^/]+|2\.0/mlflow)/", "", urlsplit(path).path)


def _handler(server: TroubledServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30
        wbufsize = -1  # headers and body in one packet: two would wait for the client's delayed acknowledgement

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = server.handle(Call(self.command, self.path, headers, body))
            if answer is None:
                self.close_connection = True
                return
            try:
                self.send_response(answer.status)
                for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                for byte in answer.body if answer.pause else b"":
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(answer.pause)
                self.wfile.write(b"" if answer.pause else answer.body)
            except OSError:  # the client went away, perhaps because a test killed it
                self.close_connection = True

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815 - the names that http.server calls

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # a handshake that the client broke off, or a client that was killed
                self.close_connection = True

        def finish(self) -> None:
            try:
                super().finish()
            except OSError:
                pass

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            pass

    return Handler
