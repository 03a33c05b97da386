"""In a cluster, programs connect to no address of the node or the cloud, whichever library connects and whatever name or redirect leads there.

The servers are on the real wire. Those that a program may contact are at an address of this machine other than loopback.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from finetune_contract.documents import DatasetInputs
from finetune_stages.sdk.address_guard import AddressGuard
from finetune_stages.sdk.fault import AddressNotAllowed
from hub import Hub
from stages.conftest import StagePrograms
from web_server import Answer, FileServer, Request, Server, machine_address

HERE = Path(__file__).parents[1]
NODE = "which the stages do not contact in a cluster; use the name or address of a Service or of another machine."


class Redirecting(Server):
    """Redirects everything, or asks for a token of another server."""

    location = ""
    realm = ""

    def answer(self, request: Request, body: bytes) -> Answer:
        if self.realm:
            return Answer(401, {"WWW-Authenticate": f'Bearer realm="{self.realm}",service="x"'})
        return Answer(302, {"Location": self.location}) if self.location else Answer(200, {}, b"{}")


@pytest.fixture
def outside() -> Iterator[Redirecting]:
    """A server at an address that programs may contact."""
    with Redirecting(machine_address()) as server:
        yield server


@pytest.fixture
def inside() -> Iterator[Redirecting]:
    """A server on the loopback interface, which no program may reach."""
    with Redirecting() as server:
        yield server


def guarded(
    folder: Path, calls: Sequence[tuple[str, str]], names: Mapping[str, Sequence[str]] | None = None, **variables: str
) -> list[tuple[str, str]]:
    """Return reason and message of each call in a process with the guard."""
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": os.pathsep.join(sys.path), "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "FINETUNE_PRIVATE_ADDRESSES": "allowed", **variables,
    }  # fmt: skip
    orders = json.dumps({"names": names or {}, "calls": calls})
    command = [sys.executable, str(HERE / "guarded.py")]
    ended = subprocess.run(
        command, input=orders, env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    found: list[list[str]] = json.loads(ended.stdout.splitlines()[-1])
    return [(reason, message) for reason, message in found]


def port_of(server: Server) -> str:
    return server.url.rpartition(":")[2]


def test_no_form_of_an_address_leads_to_the_node(inside: Redirecting, tmp_path: Path) -> None:
    port = port_of(inside)
    hosts = [
        "127.0.0.1", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "localhost", "0", "0.0.0.0",
        "127.0.0.1.nip.example", "127.0.0.1.nip.example.",
    ]  # fmt: skip
    names = {name: ["127.0.0.1"] for name in ("127.0.0.1.nip.example", "127.0.0.1.nip.example.")}
    found = guarded(tmp_path, [("web", f"http://{host}:{port}/data.jsonl") for host in hosts], names)
    assert {reason for reason, _ in found} == {"AddressNotAllowed"}, list(zip(hosts, found, strict=True))
    assert inside.requests == []
    url = f"dataset.uri: http://127.0.0.1:{port}/data.jsonl"
    assert found[0][1] == f"{url}: 127.0.0.1 is a loopback address, {NODE}"
    assert (
        found[1][1]
        == f"dataset.uri: http://2130706433:{port}/data.jsonl: host 2130706433 has the loopback address 127.0.0.1, {NODE}"
    )
    assert "host 127.0.0.1.nip.example has the loopback address 127.0.0.1" in found[-2][1]


def test_the_metadata_servers_are_not_contacted(tmp_path: Path) -> None:
    hosts = [
        "169.254.169.254",
        "[fd00:ec2::254]",
        "100.100.100.200",
        "0xa9fea9fe",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
    ]
    found = guarded(tmp_path, [("web", f"http://{host}/latest") for host in hosts])
    assert {reason for reason, _ in found} == {"AddressNotAllowed"}, list(zip(hosts, found, strict=True))
    assert found[0][1] == f"dataset.uri: http://169.254.169.254/latest: 169.254.169.254 is a metadata address, {NODE}"


def test_every_library_is_checked(inside: Redirecting, tmp_path: Path) -> None:
    name = f"a.example:{port_of(inside)}"
    calls = [
        ("web", f"http://{name}/x"), ("image", name), ("s3", f"http://{name}"), ("rest", f"http://{name}"), ("mlflow", f"http://{name}"),
        ("task", f"http://{name}/x"), ("datagram", "127.0.0.1"), ("datagram", "localhost"),
    ]  # fmt: skip
    found = guarded(tmp_path, calls, {"a.example": ["127.0.0.1"]})
    assert {reason for reason, _ in found} == {"AddressNotAllowed"}, list(zip(calls, found, strict=True))
    assert inside.requests == []
    is_known = f"host a.example has the loopback address 127.0.0.1, {NODE}"
    assert [message for _, message in found[1:5]] == [
        f"model.uri: oci://{name}/team/model:1: {is_known}", f"model.uri: s3://data/model/: {is_known}",
        f"registry.address: http://{name}: {is_known}", f"registry.address: http://{name}: {is_known}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:{port}/x", "http://inside.example:{port}/x", "http://169.254.169.254/latest/meta-data/"]
)
def test_a_redirect_does_not_lead_to_the_node(outside: Redirecting, inside: Redirecting, tmp_path: Path, target: str) -> None:
    outside.location = target.replace("{port}", port_of(inside))
    found = guarded(
        tmp_path, [("web", f"{outside.url}/data.jsonl"), ("task", f"{outside.url}/x")], {"inside.example": ["127.0.0.1"]}
    )
    assert [reason for reason, _ in found] == ["AddressNotAllowed"] * 2
    assert found[0][1].startswith(f"dataset.uri: {outside.url}/data.jsonl: ")
    assert (inside.requests, len(outside.requests) > 0) == ([], True)


def test_a_name_that_changes_its_address_does_not_lead_to_the_node(
    outside: Redirecting, inside: Redirecting, tmp_path: Path
) -> None:
    """The first lookup finds an allowed address, and the lookup of the redirect the other one."""
    outside.location = f"http://a.example:{port_of(inside)}/x"
    names = {"a.example": [machine_address(), "127.0.0.1"]}
    ((reason, _),) = guarded(tmp_path, [("web", f"http://a.example:{port_of(outside)}/x")], names)
    assert (reason, inside.requests, len(outside.requests)) == ("AddressNotAllowed", [], 1)


def test_the_server_for_tokens_and_the_blobs_of_a_registry_are_not_on_the_node(
    outside: Redirecting, inside: Redirecting, tmp_path: Path
) -> None:
    """The registry is reached by the name ``localhost``, because only there it is asked without TLS."""
    registry = f"localhost:{port_of(outside)}"
    names = {"localhost": [machine_address()]}
    outside.realm = f"{inside.url}/token"
    ((reason, message),) = guarded(tmp_path, [("image", registry)], names)
    assert reason == "AddressNotAllowed"
    assert message == f"model.uri: oci://{registry}/team/model:1: 127.0.0.1 is a loopback address, {NODE}"
    outside.realm, outside.location = "", f"http://b.example:{port_of(inside)}/blob"
    ((reason, message),) = guarded(tmp_path, [("image", registry)], {**names, "b.example": ["127.0.0.1"]})
    assert reason == "AddressNotAllowed"
    assert "host b.example has the loopback address" in message
    assert inside.requests == []


def test_private_addresses_are_allowed_unless_the_platform_lists_their_hosts(outside: Redirecting, tmp_path: Path) -> None:
    calls = [("web", f"http://a.example:{port_of(outside)}/x"), ("web", "http://b.example:9/x")]
    names = {"a.example": [machine_address()], "b.example": ["10.255.255.1"]}
    hosts = json.dumps({"hosts": ["*.example"], "objectStores": ["10.1.2.3"]})
    assert guarded(tmp_path, calls[:1], names) == [("", "")]
    listed = {"FINETUNE_PRIVATE_ADDRESSES": "listed"}
    found = guarded(tmp_path, calls[1:], names, **listed)
    sentence = (
        "dataset.uri: http://b.example:9/x: host b.example has the private address 10.255.255.1, which the stages contact only for hosts in"
        " allowedHosts; use an allowed host, or have it added there in the operator's configuration."
    )
    assert found == [("AddressNotAllowed", sentence)]
    guard = AddressGuard.of({**listed, "FINETUNE_ALLOWED_HOSTS": hosts})
    assert guard is not None
    guard.note("b.example", [(0, 0, 0, "", ("10.255.255.1", 9))])
    guard.require("10.255.255.1", 9)
    guard.require("10.1.2.3", 80)
    for text, port in (("10.255.255.1", 10), ("10.255.255.2", 9), ("fd00::1", 80)):
        with pytest.raises(AddressNotAllowed):
            guard.require(text, port)


def test_servers_of_the_platform_may_have_any_address_and_those_of_a_secret_may_not(inside: Redirecting, tmp_path: Path) -> None:
    named = f"http://hub.example:{port_of(inside)}"
    names = {"hub.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]}
    for variable in ("HF_ENDPOINT", "AWS_ENDPOINT_URL_S3"):
        ours = [("web", f"{named}/x"), ("web", "http://other.example:9/x"), ("web", "http://hub.example:9/x")]
        assert [reason for reason, _ in guarded(tmp_path, ours, names, **{variable: named})] == ["", *["AddressNotAllowed"] * 2]
    secret = {"AWS_ENDPOINT_URL_S3": named, "FINETUNE_SECRETS": "A,AWS_ENDPOINT_URL_S3"}
    assert guarded(tmp_path, [("web", f"{named}/x")], names, **secret)[0][0] == "AddressNotAllowed"


def test_a_proxy_may_be_on_the_node(inside: Redirecting, tmp_path: Path) -> None:
    calls = [("web", "http://files.example/x"), ("web", f"http://127.0.0.1:{port_of(inside)}/x")]
    found = guarded(tmp_path, calls, HTTP_PROXY=inside.url)
    assert [reason for reason, _ in found] == ["", "AddressNotAllowed"]
    assert inside.paths() == ["http://files.example/x"]


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials"}, "169.254.170.23"),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials"}, "169.254.170.2"),
        ({"AWS_EC2_METADATA_DISABLED": "false"}, "169.254.169.254"),
    ],
)  # fmt: skip
def test_the_servers_with_the_credentials_of_the_pod_are_reached_only_by_their_own_name(
    variables: dict[str, str], address: str
) -> None:
    guard = AddressGuard.of({"FINETUNE_PRIVATE_ADDRESSES": "allowed", **variables})
    assert guard is not None
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80))]
    guard.note(address, found)
    guard.require(address, 80)
    guard.note("a.example", found)
    with pytest.raises(AddressNotAllowed):
        guard.require(address, 80)
    guard.note("files.example", [])
    with pytest.raises(AddressNotAllowed):
        guard.require(address, 80)
    without = AddressGuard.of({"FINETUNE_PRIVATE_ADDRESSES": "allowed", "AWS_EC2_METADATA_DISABLED": "true"})
    assert without is not None
    without.note(address, found)
    with pytest.raises(AddressNotAllowed):
        without.require(address, 80)


def test_the_hub_of_the_platform_may_be_anywhere(run_stage_program: StagePrograms, tmp_path: Path) -> None:
    """Data in JSON and in Parquet, with the clients of both libraries; the size of a table on the hub is checked, too."""
    rows = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": f"a{n}"}]} for n in range(20)]
    large = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), pa.array(["x" * (1 << 20)]))
    pa.parquet.write_table(pa.table({"text": large}), tmp_path / "large.parquet", compression="zstd")
    pa.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    with Hub(tmp_path / "hub") as hub:
        hub.add("dataset", "org/json", {"train.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode()})
        hub.add("dataset", "org/parquet", {"train.parquet": (tmp_path / "rows.parquet").read_bytes()})
        hub.add("dataset", "org/large", {"train.parquet": (tmp_path / "large.parquet").read_bytes()})
        environment = {"HF_ENDPOINT": hub.url, "FINETUNE_PRIVATE_ADDRESSES": "listed"}
        for number, name in enumerate(("json", "parquet"), start=1):
            ended = run_stage_program("dataset", {"uri": f"org/{name}"}, attempt=f"1.{number}", environment=environment)
            assert ended.code == 0, ended.errors
        ended = run_stage_program("dataset", {"uri": "org/large"}, attempt="1.9", environment=environment)
        assert ended.result is not None
        assert (ended.reason, ended.result.message) == (
            "DatasetUnreadable",
            "org/large/train.parquet: its content is larger than 1 GiB; write it with less compression, or as several files.",
        )


def test_a_program_has_the_guard_in_a_cluster_only(run_stage_program: StagePrograms, tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    rows = "".join(
        json.dumps({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": f"a{n}"}]}) + "\n"
        for n in range(20)
    )
    (tmp_path / "web" / "data.jsonl").write_text(rows)
    with FileServer(tmp_path / "web") as server:
        inputs: Any = DatasetInputs(f"{server.url}/data.jsonl")
        ended = run_stage_program("dataset", inputs, environment={"FINETUNE_PRIVATE_ADDRESSES": "allowed"})
        assert (ended.reason, server.requests) == ("AddressNotAllowed", [])
        assert run_stage_program("dataset", inputs, attempt="1.2").code == 0
