"""What a command loads: help is quick, a command on this machine needs nothing that is for clusters, and what is missing is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
clusters: [{name: here, cluster: {server: "https://127.0.0.1:9"}}]
contexts: [{name: here, context: {cluster: here, user: me}}]
users: [{name: me, user: {token: very-secret}}]
"""
PROGRAM = """
import sys
sys.argv = ["finetune", *{words!r}]
sys.modules.update(dict.fromkeys({absent!r}))
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
            "kubernetes is not installed; for a cluster, finetune needs: pip install 'finetune-operator[operator]'\n",
        ),
        (
            ("run", "run.yaml"), "cel_expr_python",
            "The embedded API needs cel-expr-python: pip install 'finetune-operator[local]'.\n",
        ),
    ],
    ids=["cluster", "local"],
)  # fmt: skip
def test_what_is_not_installed_is_told(tmp_path: Path, words: tuple[str, ...], absent: str, sentence: str) -> None:
    (tmp_path / "kubeconfig").write_text(KUBECONFIG)
    (tmp_path / "run.yaml").write_text(
        "apiVersion: finetunerun.io/v1alpha1\nkind: FineTuneRun\nmetadata: {name: demo}\nspec: {dataset: {uri: org/data}}\n"
    )
    done = run(tmp_path, *words, absent=(absent,))
    assert (done.returncode, done.stderr) == (69, sentence)
