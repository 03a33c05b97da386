"""Answers of a registry that is not trusted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from finetune_stages.registration.properties import OURS, replaced
from finetune_stages.registration.rest import Access, Rest
from finetune_stages.sdk import StageError


@contextmanager
def answering(status: int, content: bytes) -> Iterator[str]:
    """Yield the address of a server with one answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


BAD = [b"[" * 200_000, b'{"a":' * 200_000, b'{"a": NaN}', b'{"a": 1, "a": 2}', b'{"a": "\xff"}', b'{"a": "\\ud800"}']


@pytest.mark.parametrize("content", BAD, ids=["brackets", "objects", "NaN", "twice", "not UTF-8", "surrogate"])
@pytest.mark.parametrize("status", [200, 400])
def test_an_answer_that_is_not_json_is_a_rejection(status: int, content: bytes) -> None:
    with answering(status, content) as address, Rest(Access(address)) as rest, pytest.raises(StageError) as error:
        rest.get("/x")
    assert error.value.reason.name == "RegistryRejected"
    assert ("instead of JSON" if status == 200 else "with status 400.") in error.value.message


def test_a_message_of_a_registry_controls_no_terminal() -> None:
    content = b'{"message": "a\\u001b]0;x\\u0007 b\\n\\u202ec"}'
    with answering(400, content) as address, Rest(Access(address)) as rest, pytest.raises(StageError) as error:
        rest.get("/x")
    assert error.value.message == "The registry rejected the entry with status 400 (a ]0;x b c)."


def test_names_of_properties_that_cannot_be_read_are_unknown() -> None:
    existing = {OURS: {"string_value": "[" * 200_000}, "kept": {"string_value": "1"}}
    assert replaced(existing, {}).keys() >= {"kept"}
