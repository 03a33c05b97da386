"""Files behind http://: what servers answer, and what that means to a run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from finetune_contract.documents import DatasetInputs
from web_server import FileServer, unused_port

SECRET = "hf_this_is_a_secret_token"
ROWS = [
    {"messages": [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"}]}
    for number in range(2000)
]


@pytest.fixture
def address(web: FileServer) -> str:
    """Where the server has the rows."""
    (web.folder / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return f"{web.url}/chat.jsonl"


def test_rows_from_the_web_and_no_token_to_it(run_stage_program, web, address):
    ended = run_stage_program(
        "dataset", DatasetInputs(f"{web.url}/redirect/chat.jsonl?name=abcdef"), environment={"HF_TOKEN": SECRET}
    )
    assert ended.code == 0, ended.errors
    assert ended.result.outputs["trainRows"] == 1800
    assert web.paths() == ["/redirect/chat.jsonl?name=abcdef", "/chat.jsonl"]
    assert not any(SECRET in value for request in web.requests for value in request.headers.values())
    assert "abcdef" not in ended.output + ended.errors + ended.message
    assert "downloading" in ended.output


@pytest.mark.parametrize(
    ("how", "code", "reason", "words"),
    [
        ({"status": 401}, 65, "DatasetForbidden", "requires a login (status 401)"),
        ({"status": 403}, 65, "DatasetForbidden", "requires a login (status 403)"),
        ({"status": 404}, 65, "DatasetNotFound", "does not exist (status 404); correct the address."),
        ({"status": 410}, 65, "DatasetNotFound", "does not exist (status 410)"),
        ({"status": 429}, 75, "DatasetUnreachable", "responded with status 429"),
        ({"status": 500}, 75, "DatasetUnreachable", "responded with status 500"),
        ({"status": 503}, 75, "DatasetUnreachable", "responded with status 503"),
        ({"truncate_after": 1000, "times": 9}, 75, "DatasetUnreachable", "is unreachable or sent an invalid response"),
        ({"reset_after": 1000, "times": 9}, 75, "DatasetUnreachable", "is unreachable or sent an invalid response"),
        ({"reset_after": 0, "times": 9}, 75, "DatasetUnreachable", "is unreachable or sent an invalid response"),
    ],
)
def test_servers_that_fail(run_stage_program, web, address, how, code, reason, words):
    web.fault("chat.jsonl", **how)
    ended = run_stage_program("dataset", DatasetInputs(address))
    assert (ended.code, ended.reason) == (code, reason)
    assert words in ended.result.message
    assert address in ended.result.message
    assert "Traceback" not in ended.errors
    assert run_stage_program("dataset", DatasetInputs(address), attempt="1.2").code == 0


@pytest.mark.parametrize("uri", ["http://127.0.0.1:{port}/x", "http://no-such-host.invalid/x"])
def test_servers_that_are_not_there(run_stage_program, uri):
    ended = run_stage_program("dataset", DatasetInputs(uri.format(port=unused_port())))
    assert (ended.code, ended.reason) == (75, "DatasetUnreachable")


@pytest.mark.parametrize("uri", ["http://", "https:///x", "http://127.0.0.1:port/x"])
def test_what_is_no_address(run_stage_program, uri):
    ended = run_stage_program("dataset", DatasetInputs(uri))
    assert (ended.code, ended.reason) == (65, "DatasetNotFound")
    assert "is not a web address" in ended.result.message


def test_a_login_page_is_no_data(run_stage_program, web):
    (web.folder / "login").write_text("<!doctype html>\n<html><body>Please log in</body></html>")
    ended = run_stage_program("dataset", DatasetInputs(f"{web.url}/login"))
    assert (ended.code, ended.reason) == (65, "DatasetUnreadable")
    assert ended.result.message == (
        f"{web.url}/login: is not JSON or JSON Lines and looks like a web page (HTML or XML); name the address or the path of the data"
        " itself."
    )


def test_a_git_lfs_pointer_behind_an_address(run_stage_program, web):
    (web.folder / "pointer.jsonl").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    ended = run_stage_program("dataset", DatasetInputs(f"{web.url}/pointer.jsonl"))
    assert (ended.code, ended.reason) == (65, "DatasetUnreadable")
    assert ended.result.message == (
        f"{web.url}/pointer.jsonl: is a Git LFS pointer, not the file itself; use the address that serves the file's content (on the"
        " hub, /resolve/ instead of /raw/)."
    )


def test_a_stated_digest_and_the_cache(run_stage_program, web, address):
    ended = run_stage_program("dataset", DatasetInputs(address, sha256="0" * 64))
    assert (ended.code, ended.reason) == (65, "DatasetChanged")
    assert run_stage_program("dataset", DatasetInputs(address)).code == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_ended_in_the_middle_of_a_download_and_started_again(run_stage_program, web, address, how):
    hold = web.fault("chat.jsonl", hold_after=5000)
    running = run_stage_program.start("dataset", DatasetInputs(address))
    assert hold.reached.wait(60)
    os.kill(running.process.pid, how)
    ended = running.wait(timeout=20)
    if how is signal.SIGTERM:
        assert (ended.code, ended.reason) == (143, "Interrupted")
    else:
        assert (ended.code, ended.result) == (-signal.SIGKILL, None)
    assert not run_stage_program.path("cache/datasets").exists()
    assert not run_stage_program.path(run_stage_program.layout.datasets).exists()
    assert run_stage_program("dataset", DatasetInputs(address), attempt="1.2").code == 0
    attempts: Path = run_stage_program.path(f"{run_stage_program.layout.root}/attempts/dataset")
    assert [path.name for path in attempts.iterdir()] == ["current"]
