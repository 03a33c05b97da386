"""What a command imports: help is quick, local commands need no client, and commands on a cluster need no package of the operator."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from api_server import application, serving
from finetune_operator.local.store import Store

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: here, cluster: {server: "SERVER"}}]
contexts: [{name: here, context: {cluster: here, user: me}}]
users: [{name: me, user: {token: very-secret}}]
"""
PROGRAM = """
import importlib.abc
import sys


class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
        return None


sys.meta_path.insert(0, Blocker())
sys.argv = ["finetune", *{words!r}]
from finetune_operator.cli import main
try:
    main()
finally:
    print("loaded", *sorted({{"aiohttp", "kubernetes", "rich"}} & {{name for name, module in sys.modules.items() if module}}))
"""


def run(folder: Path, *words: str, absent: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(words=list(words), absent=list(absent))
    return subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("words", "loaded"), [(("--help",), ""), (("logs", "--help"), ""), (("get",), "rich")], ids=["help", "logs", "get"]
)
def test_a_command_loads_only_what_it_needs(tmp_path: Path, words: tuple[str, ...], loaded: str) -> None:
    assert run(tmp_path, *words).stdout.splitlines()[-1] == f"loaded {loaded}".strip()


@pytest.mark.parametrize(
    ("words", "absent", "sentence"),
    [
        (
            ("get", "--kubeconfig", "kubeconfig"), "kubernetes",
            "kubernetes: this package, which reads kubeconfigs, is not installed; pip install 'finetune-operator[cluster]'\n",
        ),
        (
            ("run", "run.yaml"), "cel_expr_python",
            ("cel-expr-python: this package, which evaluates the CRD's rules, is not installed; pip install 'finetune-operator[local]', or"
             " 'finetune-operator[operator]' for the operator\n"),
        ),
    ],
    ids=["cluster", "local"],
)  # fmt: skip
def test_a_missing_package_is_reported(tmp_path: Path, words: tuple[str, ...], absent: str, sentence: str) -> None:
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    (tmp_path / "run.yaml").write_text(
        "apiVersion: finetunerun.io/v1alpha1\nkind: FineTuneRun\nmetadata: {name: demo}\nspec: {dataset: {uri: org/data}}\n"
    )
    done = run(tmp_path, *words, absent=(absent,))
    assert (done.returncode, done.stderr) == (69, sentence)


async def test_a_command_on_a_cluster_needs_neither_kopf_nor_prometheus(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")
    metadata = {"name": "demo", "namespace": "team"}
    spec = {"dataset": {"uri": "org/data"}}
    await store.create({"apiVersion": "finetunerun.io/v1alpha1", "kind": "FineTuneRun", "metadata": metadata, "spec": spec})
    operator_only = ("kopf", "prometheus_client", "pythonjsonlogger")
    async with serving(application(store, token="very-secret")) as address:
        (tmp_path / "kubeconfig").write_text(KUBECONFIG.replace("SERVER", address))
        done = await asyncio.to_thread(
            run, tmp_path, "get", "--kubeconfig", "kubeconfig", "-n", "team", "-o", "name", absent=operator_only
        )
    store.close()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["finetunerun.finetunerun.io/demo", "loaded aiohttp kubernetes rich"]


def test_the_operator_needs_the_packages_that_the_command_line_does_without(tmp_path: Path) -> None:
    """The blocker of these tests works: what the operator imports is among the blocked packages."""
    program = PROGRAM.format(words=[], absent=["kopf"]).partition("sys.argv")[0] + "import finetune_operator.kube.command"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "No module named 'kopf'" in done.stderr
