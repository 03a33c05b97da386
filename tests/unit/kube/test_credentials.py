"""Credentials of the operator, and that no message about a kubeconfig contains its content."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator.kube import credentials
from finetune_operator.kube.credentials import NoCredentials, load_credentials


def kubeconfig(folder: Path, user: dict[str, Any]) -> Path:
    file = folder / "kubeconfig"
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "here", "users": [{"name": "me", "user": user}],
        "clusters": [{"name": "here", "cluster": {"server": "https://api.example.com:6443"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me", "namespace": "team"}}],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(document))
    return file


def test_a_context_has_server_and_identity(tmp_path: Path) -> None:
    found = load_credentials(kubeconfig(tmp_path, {"token": "abc"}))
    assert (found.address, found.namespace) == ("https://api.example.com:6443", "team")
    assert found.token is not None
    assert found.token() == "abc"


@pytest.mark.parametrize(
    "user",
    [
        {"auth-provider": {"name": "oidc", "config": {"client-id": "x", "id-token": "SECRET.SECRET.SECRET", "refresh-token": "SECRET"}}},
        {"client-certificate-data": "SECRET", "client-key-data": "SECRET"},
    ],
    ids=["an entry that lacks a part", "data that is no base64"],
)  # fmt: skip
def test_the_message_about_a_malformed_entry_has_no_content(
    tmp_path: Path, user: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(NoCredentials) as rejected:
        load_credentials(kubeconfig(tmp_path, user))
    assert "SECRET" not in str(rejected.value)
    assert "SECRET" not in caplog.text


EMPTY = {
    "certificate-authority": ("cluster", {"certificate-authority": ""}), "certificate-authority-data": ("cluster", {"certificate-authority-data": ""}),
    "tls-server-name": ("cluster", {"tls-server-name": ""}), "proxy-url": ("cluster", {"proxy-url": ""}),
    "client-certificate": ("user", {"client-certificate": "", "client-key": ""}),
    "client-certificate-data": ("user", {"client-certificate-data": "", "client-key-data": ""}),
    "tokenFile": ("user", {"tokenFile": ""}), "username": ("user", {"username": "", "password": ""}), "exec": ("user", {"exec": None}),
    "auth-provider": ("user", {"auth-provider": {}}), "null": ("cluster", {"certificate-authority": None}), "namespace": ("context", {"namespace": ""}),
}  # fmt: skip


@pytest.mark.parametrize(("part", "fields"), EMPTY.values(), ids=EMPTY)
def test_an_empty_field_is_absent_as_for_kubectl(tmp_path: Path, part: str, fields: dict[str, Any]) -> None:
    file = kubeconfig(tmp_path, {"token": "abc"})
    document = yaml.safe_load(file.read_text())
    document[f"{part}s"][0][part] |= fields
    file.write_text(yaml.safe_dump(document))
    found = load_credentials(file)
    assert (found.authority, found.certificate, found.key, found.verified) == (None, None, None, True)
    assert found.namespace == ("default" if part == "context" else "team")
    assert found.token is not None
    assert found.token() == "abc"
    assert found.tls().check_hostname


def test_a_field_is_used_if_one_with_precedence_is_empty(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from a file")
    found = load_credentials(kubeconfig(tmp_path, {"token": "", "tokenFile": "token"}))
    assert found.token is not None
    assert found.token() == "from a file"


@pytest.mark.parametrize("user", [{"token": ""}, {"username": "", "password": ""}, {}, None])
def test_a_user_of_empty_fields_has_no_token(tmp_path: Path, user: Any) -> None:
    assert load_credentials(kubeconfig(tmp_path, user)).token is None


def test_another_context_has_its_own_namespace(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, {"token": "abc"})
    document = yaml.safe_load(file.read_text())
    document["contexts"].append({"name": "there", "context": {"cluster": "here", "user": "me", "namespace": "other"}})
    file.write_text(yaml.safe_dump(document))
    assert load_credentials(file, "there").namespace == "other"
    assert load_credentials(file).namespace == "team"


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(NoCredentials, match="set KUBECONFIG, or run in a pod"):
        load_credentials(tmp_path / "nothing")


@pytest.mark.parametrize(("host", "address"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")])
def test_a_pod_has_the_identity_of_its_service_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, address: str
) -> None:
    monkeypatch.setattr(credentials, "SERVICE_ACCOUNT_FOLDER", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(NoCredentials, match="KUBERNETES_SERVICE_HOST"):
        load_credentials()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    with pytest.raises(NoCredentials, match="namespace"):
        load_credentials()
    (tmp_path / "namespace").write_text("team\n")
    (tmp_path / "token").write_text("first\n")
    found = load_credentials()
    assert (found.address, found.namespace, found.authority, found.verified) == (address, "team", str(tmp_path / "ca.crt"), True)
    assert found.token is not None
    assert found.token() == "first"
    (tmp_path / "token").write_text("renewed")
    assert found.token() == "renewed"


WITHOUT_PACKAGE = """
import sys
from pathlib import Path
sys.modules[sys.argv.pop(2)] = None
from finetune_operator.kube import command, credentials
credentials.SERVICE_ACCOUNT_FOLDER = Path(sys.argv.pop(1))
command.main()
"""


def run_without_client(account: Path, config: Path, package: str = "kubernetes") -> str:
    """The operator's output without a package, by default the official client; its configuration cannot be used, so it does not connect."""
    environment = {"PATH": os.environ["PATH"], "KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "9"}
    command = [sys.executable, "-c", WITHOUT_PACKAGE, str(account), package, "--config", str(config)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    return done.stdout


def test_the_operator_in_a_pod_needs_no_official_client(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("team\n")
    (tmp_path / "configuration.yaml").write_text("unknown: field\n")
    assert "unknown" in run_without_client(tmp_path, tmp_path / "configuration.yaml")


def test_the_operator_outside_a_pod_names_the_extra_that_is_missing(tmp_path: Path) -> None:
    found = run_without_client(tmp_path / "no-pod", tmp_path / "configuration.yaml")
    assert "pip install 'finetune-operator[cluster]'" in found


def test_the_operator_without_the_library_for_rules_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("team\n")
    (tmp_path / "configuration.yaml").write_text("workers: 2\n")
    found = run_without_client(tmp_path, tmp_path / "configuration.yaml", "cel_expr_python")
    assert "or 'finetune-operator[operator]' for the operator" in found


def test_the_image_of_the_operator_has_no_official_client() -> None:
    locked = Path(__file__).parents[3].joinpath("requirements/operator.lock").read_text(encoding="utf-8")
    names = {line.partition("==")[0] for line in locked.splitlines() if line[:1].isalnum()}
    assert {"cel-expr-python", "kopf", "prometheus-client"} <= names
    assert not {"kubernetes", "requests", "urllib3"} & names
