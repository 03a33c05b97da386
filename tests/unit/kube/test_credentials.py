"""Who the operator is to a cluster, and that no complaint about a kubeconfig shows what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

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
