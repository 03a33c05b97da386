"""Who the operator is to a cluster, and that no complaint about a kubeconfig shows what is in it."""

from __future__ import annotations

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


def test_a_context_says_where_and_as_whom(tmp_path: Path) -> None:
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
def test_a_broken_entry_is_told_without_its_content(
    tmp_path: Path, user: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(NoCredentials) as refused:
        load_credentials(kubeconfig(tmp_path, user))
    assert "SECRET" not in str(refused.value)
    assert "SECRET" not in caplog.text


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(NoCredentials, match="set KUBECONFIG, or run in a pod"):
        load_credentials(tmp_path / "nothing")


@pytest.mark.parametrize(("host", "address"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")])
def test_a_pod_is_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, address: str) -> None:
    monkeypatch.setattr(credentials, "SERVICE_ACCOUNT", tmp_path)
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


def test_the_operator_does_without_the_official_client() -> None:
    """It is a third of its memory, and in a pod nothing needs it."""
    program = (
        "import sys, finetune_operator.kube.command; print(sorted(name for name in sys.modules if name.startswith('kubernetes')))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
