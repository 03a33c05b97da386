"""Kubeconfigs that cannot be used: one sentence each, which names the file and the remedy and contains no token."""

from __future__ import annotations

from pathlib import Path

import pytest
from kubernetes.config import kube_config

from finetune_operator.cli import exit_status
from finetune_operator.cli.backend_selection import find_backend
from finetune_operator.cli.cluster_backend import ClusterBackend
from finetune_operator.cli.errors import CommandError
from finetune_operator.cli.options import Target

GOOD = """apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]
users: [{name: u, user: {token: a-secret-token}}]
contexts: [{name: a, context: {cluster: c, user: u, namespace: team}}]
current-context: a
"""
NOT_ONE = ": not a kubeconfig; give a YAML file with clusters, users and contexts."
LOG_IN = "log in again (oc login)."


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the file that ``$KUBECONFIG`` names."""
    path = tmp_path / "config"
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))  # the client reads the variable once
    monkeypatch.delenv("FINETUNE_CONTEXT", raising=False)
    return path


def rejection(target: Target) -> CommandError:
    with pytest.raises(CommandError) as error:
        find_backend(target)
    assert len(error.value.lines) == 1
    assert "a-secret-token" not in error.value.lines[0]
    return error.value


@pytest.mark.parametrize("text", [GOOD, "\ufeff" + GOOD, GOOD.replace("current-context: a", "current-context: !!str a")])
def test_a_usable_kubeconfig(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    found = find_backend(Target(namespace="x"))
    assert isinstance(found, ClusterBackend)
    assert (found.credentials.address, found.credentials.namespace) == ("https://127.0.0.1:1", "team")


@pytest.mark.parametrize(
    ("text", "sentence", "code"),
    [
        ("", NOT_ONE, 65), ("- a\n", NOT_ONE, 65), (GOOD.replace("contexts: [", "contexts: 5 # ["), NOT_ONE, 65),
        (GOOD.replace("name: a,", "name: null,"), NOT_ONE, 65), (GOOD.replace("users: [{", "users: [abc] # ["), NOT_ONE, 65),
        (GOOD.replace("current-context: a", "current-context: [a]"), NOT_ONE, 65),
        (GOOD.replace("context: {cluster: c, user: u, namespace: team}", "context: c"), NOT_ONE, 65),
        (GOOD + "a: [a-secret-token", f":8: not valid YAML; correct the line, or {LOG_IN}", 65),
        (GOOD + "kind: Config\n", f":7: not valid YAML; correct the line, or {LOG_IN}", 65),
        (GOOD.replace("current-context: a\n", ""), ": no current context; choose one with --context: a.", 2),
        (GOOD.replace("current-context: a", "current-context: ''"), ": no current context; choose one with --context: a.", 2),
        (GOOD.replace("current-context: a", "current-context: b"), ": the current context b does not exist; choose one with --context: a.", 2),
        (GOOD.replace("current-context: a", "current-context: 5"), ": the current context 5 does not exist; choose one with --context: a.", 2),
        ("current-context: a", ": the current context a does not exist; log in (oc login).", 2),
        (GOOD.replace("cluster: c,", "cluster: q,"), f": context a names the cluster q, which does not exist; add it, or {LOG_IN}", 65),
        (GOOD.replace("user: u,", "user: q,"), f": context a names the user q, which does not exist; add it, or {LOG_IN}", 65),
        (GOOD.replace("clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n", ""),
         f": context a names the cluster c, which does not exist; add it, or {LOG_IN}", 65),
        (GOOD.replace("{server: 'https://127.0.0.1:1'}", "{}"),
         f": context a has a cluster whose server is not an https:// address; correct it, or {LOG_IN}", 65),
        (GOOD.replace("https://127.0.0.1:1", "nonsense"),
         f": context a has a cluster whose server is not an https:// address; correct it, or {LOG_IN}", 65),
        (GOOD.replace("token: a-secret-token", "tokenFile: /nonexistent"),
         f": context a cannot be used: No such file or directory: '/nonexistent'; {LOG_IN}", 65),
    ],
)  # fmt: skip
def test_an_unusable_kubeconfig_is_one_sentence(file: Path, text: str, sentence: str, code: int) -> None:
    file.write_text(text)
    error = rejection(Target(namespace="x"))
    assert (error.lines, error.code) == ([f"{file}{sentence}"], code)


def test_a_context_that_does_not_exist(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(GOOD)
    error = rejection(Target(context="b"))
    assert (error.lines, error.code) == ([f"--context b: no such context in {file}; choose one of: a."], exit_status.USAGE)
    monkeypatch.setenv("FINETUNE_CONTEXT", "c")
    assert rejection(Target()).lines == [f"$FINETUNE_CONTEXT c: no such context in {file}; choose one of: a."]
    assert rejection(Target(context="b")).lines[0].startswith("--context b: no such context")


def test_a_file_that_does_not_exist(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = rejection(Target(namespace="x"))
    sentence = f"kubeconfig {file} ($KUBECONFIG): no such file; log in (oc login) or give --kubeconfig FILE."
    assert (error.lines, error.code) == ([sentence], exit_status.NO_INPUT)
    error = rejection(Target(context="a"))
    assert error.lines == [
        f"--context a: no such context because {file} ($KUBECONFIG) does not exist; give --kubeconfig FILE or log in (oc login)."
    ]
    error = rejection(Target(kubeconfig=file))
    assert (error.lines, error.code) == ([f"--kubeconfig {file}: no such file; give an existing one."], exit_status.NO_INPUT)
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(file / "config"))
    monkeypatch.setenv("HOME", str(file))
    assert rejection(Target(namespace="x")).lines[0].startswith("kubeconfig ~/.kube/config: no such file; log in (oc login)")


def test_a_directory_is_not_a_kubeconfig(file: Path) -> None:
    file.mkdir()
    error = rejection(Target(namespace="x"))
    assert (error.lines, error.code) == ([f"{file}: cannot be read: Is a directory; give a readable file."], exit_status.NO_INPUT)
