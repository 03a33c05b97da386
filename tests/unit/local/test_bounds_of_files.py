"""Nothing that an object names is read or written outside its place."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from finetune_contract import CONTRACT_VERSION
from finetune_contract.codec import encode
from finetune_contract.documents import DatasetInputs, RunInfo, StageDocument
from finetune_operator.api.kinds import CONFIGMAP
from finetune_operator.local.secrets import LocalSecrets
from finetune_operator.local.store import Store
from finetune_operator.local.volumes import Mounts, NotReady, Volumes, environment
from finetune_operator.loop.errors import Invalid, NotFound
from finetune_operator.validation.config_map import SIZE_LIMIT, check_config_map, key_faults

INVALID_KEYS = ("../../x", "/etc/x", "..", ".", "..data", "a/b", "", "a b", "\u00e4", "a\n", "a\x00", "k" * 254, "~\\x")


def config_map(data: Any = None, binary: Any = None) -> dict[str, Any]:
    found: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tasks", "namespace": "default"}}
    return {**found, **({"data": data} if data is not None else {}), **({"binaryData": binary} if binary is not None else {})}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "store.db")
    yield store
    store.close()


@pytest.mark.parametrize("key", INVALID_KEYS)
@pytest.mark.parametrize("section", ["data", "binaryData"])
async def test_a_key_that_is_no_file_name_is_rejected(store: Store, section: str, key: str) -> None:
    with pytest.raises(Invalid, match="Invalid value"):
        await store.create({**config_map(), section: {key: "YQ=="}})
    await store.create(config_map({"a": "b"}))
    with pytest.raises(Invalid, match="Invalid value"):
        await store.patch(CONFIGMAP, "default", "tasks", {section: {key: "YQ=="}})
    assert (await store.get(CONFIGMAP, "default", "tasks")).get("data") == {"a": "b"}


@pytest.mark.parametrize("key", ["a", "A-b_c.9", ".a", "a..b", "-", "k" * 253])
def test_a_valid_key(key: str) -> None:
    assert key_faults(key) == []
    assert check_config_map(config_map({key: "b"})) == []


@pytest.mark.parametrize(
    ("configmap", "problem"),
    [
        (config_map(["a"]), 'data: Invalid value: ["a"]: data in body must be of type object'),
        (config_map({"a": 1}), "data[a]: Invalid value: must be text"),
        (config_map(None, {"a": "%"}), "binaryData[a]: Invalid value: must be bytes in base64"),
        (config_map(None, {"a": 1}), "binaryData[a]: Invalid value: must be bytes in base64"),
        (config_map({"a": "b"}, {"a": "YQ=="}), 'binaryData[a]: Invalid value: "a": duplicate of key present in data'),
        (config_map({"a": "b" * SIZE_LIMIT}, {"c": "YQ=="}), "<nil>: Too long: may not be more than 1048576 bytes"),
    ],
)  # fmt: skip
def test_content_that_an_api_server_rejects(configmap: dict[str, Any], problem: str) -> None:
    assert [str(found) for found in check_config_map(configmap)] == [problem]


class OldStore:
    """A store of an earlier release, which validated no keys."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.found = found

    async def get(self, kind: Any, namespace: str, name: str) -> dict[str, Any]:
        if kind != CONFIGMAP:
            raise NotFound(name)
        return self.found


def pod(volume: dict[str, Any], mount: dict[str, Any]) -> dict[str, Any]:
    container = {"volumeMounts": [{"mountPath": "/x", "name": volume["name"], **mount}]}
    return {"metadata": {"namespace": "default"}, "spec": {"volumes": [volume], "containers": [container]}}


@pytest.mark.parametrize("key", [key for key in INVALID_KEYS if "\x00" not in key])
async def test_a_stored_key_writes_no_file_outside_its_volume(tmp_path: Path, key: str) -> None:
    volumes = Volumes(OldStore(config_map({key: "b"}, {"good": base64.b64encode(b"c").decode()})), tmp_path / "home" / "claims")  # type: ignore[arg-type]
    with pytest.raises(NotReady, match="invalid key"):
        await volumes.mount(pod({"name": "tasks", "configMap": {"name": "tasks"}}, {}), tmp_path / "home" / "pod")
    assert {path.relative_to(tmp_path).parts[:1] for path in tmp_path.rglob("*")} <= {("home",)}
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("sub_path", ["../../../x", "/tmp/finetune-outside", "link/x"])
async def test_a_mount_does_not_leave_its_volume(tmp_path: Path, sub_path: str) -> None:
    (tmp_path / "pod/volumes/a").mkdir(parents=True)
    (tmp_path / "pod/volumes/a/link").symlink_to(tmp_path)
    volumes = Volumes(OldStore({}), tmp_path / "claims")  # type: ignore[arg-type]
    with pytest.raises(NotReady, match="leaves its volume"):
        await volumes.mount(pod({"name": "a", "emptyDir": {}}, {"subPath": sub_path}), tmp_path / "pod")
    assert not (tmp_path / "x").exists()
    found = await volumes.mount(pod({"name": "a", "emptyDir": {}}, {"subPath": "b/c"}), tmp_path / "pod")
    assert found.pairs == (("/x", str(tmp_path / "pod/volumes/a/b/c")),)


def test_environment_variables_serve_only_standard_keys() -> None:
    variables = {
        "HF_TOKEN": "a",
        "AWS_S3_ENDPOINT": "b",
        "REGISTRY_TOKEN": "c",
        "HTTP_AUTHORIZATION": "d",
        "GITHUB_TOKEN": "e",
        "SSH_AUTH_SOCK": "f",
    }
    secrets = LocalSecrets({}, variables)
    assert [secrets("any", key) for key in variables] == ["a", "b", None, None, None, None]


@pytest.mark.parametrize(
    ("endpoint", "is_sent"),
    [
        (None, True),
        ("https://s3.eu-central-1.amazonaws.com", True),
        ("https://minio.example.com/", True),
        ("https://evil.example", False),
        ("http://s3.amazonaws.com", False),
        ("https://s3.amazonaws.com.evil.example", False),
        ("https://x.execute-api.us-east-1.amazonaws.com", False),
    ],
)
@pytest.mark.parametrize("optional", [True, False])
def test_keys_of_the_environment_go_to_aws_or_to_the_server_of_the_environment(
    tmp_path: Path, endpoint: str | None, optional: bool, is_sent: bool
) -> None:
    about = RunInfo("demo", "default", "0" * 16)
    document = StageDocument(CONTRACT_VERSION, "dataset", about, encode(DatasetInputs("s3://a/b", endpoint=endpoint)))
    (tmp_path / "dataset.json").write_text(json.dumps(encode(document)))
    key = {"secretKeyRef": {"name": "mine", "key": "AWS_ACCESS_KEY_ID", "optional": optional}}
    entries = [
        {"name": "FINETUNE_CONFIG", "value": "/etc/finetune/dataset.json"},
        {"name": "AWS_ACCESS_KEY_ID", "valueFrom": key},
    ]
    container = {"spec": {"containers": [{"env": entries}]}}
    mounts = Mounts((("/etc/finetune", str(tmp_path)),))
    variables = {"AWS_ACCESS_KEY_ID": "a", "AWS_S3_ENDPOINT": "https://minio.example.com"}
    if is_sent:
        assert environment(container, mounts, LocalSecrets({}, variables))["AWS_ACCESS_KEY_ID"] == "a"
    else:
        with pytest.raises(NotReady) as problem:
            environment(container, mounts, LocalSecrets({}, variables))
        assert problem.value.message == (
            'secret "mine" has no key AWS_ACCESS_KEY_ID; the environment variable AWS_ACCESS_KEY_ID is not sent to'
            f" {endpoint}: only if you trust this server, set AWS_S3_ENDPOINT to its address or give --secret mine=FILE; for a public"
            " object, use its https:// address"
        )
    file = tmp_path / "keys"
    file.write_text("AWS_ACCESS_KEY_ID=b\n")
    assert environment(container, mounts, LocalSecrets({"mine": file}, variables))["AWS_ACCESS_KEY_ID"] == "b"


@pytest.mark.parametrize("key", ["AWS_SESSION_TOKEN", "AWS_S3_ENDPOINT", "AWS_DEFAULT_REGION"])
def test_an_optional_value_for_another_server_is_absent(tmp_path: Path, key: str) -> None:
    inputs = {"inputs": {"endpoint": "https://evil.example"}}
    (tmp_path / "dataset.json").write_text(json.dumps(inputs))
    mounts = Mounts((("/etc/finetune", str(tmp_path)),))
    variables = {key: "https://minio.example.com"}

    def found(*, optional: bool) -> dict[str, str]:
        reference = {"secretKeyRef": {"name": "mine", "key": key, "optional": optional}}
        entries = [{"name": "FINETUNE_CONFIG", "value": "/etc/finetune/dataset.json"}, {"name": key, "valueFrom": reference}]
        return environment({"spec": {"containers": [{"env": entries}]}}, mounts, LocalSecrets({}, variables))

    assert key not in found(optional=True)
    with pytest.raises(NotReady, match="only if you trust this server"):
        found(optional=False)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("HF_TOKEN", 'secret "mine" has no key HF_TOKEN; set the environment variable HF_TOKEN or give --secret mine=FILE'),
        ("GITHUB_TOKEN", 'secret "mine" has no key GITHUB_TOKEN; give --secret mine=FILE'),
    ],
)
def test_a_missing_key_of_a_secret(key: str, message: str) -> None:
    entry = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "mine", "key": key}}}
    with pytest.raises(NotReady) as problem:
        environment({"spec": {"containers": [{"env": [entry]}]}}, Mounts(()), LocalSecrets({}, {"GITHUB_TOKEN": "x"}))
    assert problem.value.message == message
