"""Resolve the dependencies anew: ``uv.lock`` for ourselves, and the hashed requirement files that everything is installed from.

    python hack/lock.py

The files hold hashes and no address (``docs/decisions/14-locks.md``).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV = Path(sys.executable).with_name("uv")
EXTRAS = {
    "operator": ("operator",), "dataset": ("dataset", "tokenization"), "model": ("model",), "training": ("training", "quantization"),
    "evaluation": ("evaluation",), "registration": ("registration",),
    "stages": ("dataset", "tokenization", "model", "training", "quantization", "evaluation", "registration"),
}  # fmt: skip
"""The extras of ``pyproject.toml`` that each file holds: one file an image."""
PRUNED = {"dataset": ("accelerate", "torch")}
"""What the packages of a file require and its programs never import: TRL's templates need neither, and PyTorch is 1 GB."""
TRAINERS = ("2.1", "2.3")


def main() -> None:
    """All of them."""
    uv("lock", "--upgrade")
    for name, extras in EXTRAS.items():
        chosen = [word for extra in extras for word in ("--extra", extra)]
        pruned = [word for package in PRUNED.get(name, ()) for word in ("--prune", package)]
        export(name, "--no-default-groups", *chosen, *pruned, "--no-emit-project")
    export("bootstrap", "--only-group", "bootstrap")
    export("all", "--all-extras", "--group", "dev", "--no-emit-project")
    compile_file("images/build/tools.lock", (ROOT / "images/build/tools.in").read_text(encoding="utf-8"))
    for release in TRAINERS:
        compile_file(f"hack/trainer_models/{release}.lock", f"kubeflow-trainer-api=={release}.0\n")


def export(name: str, *which: str) -> None:
    """Part of ``uv.lock`` as a requirement file."""
    uv("export", *which, "--format", "requirements-txt", "--no-header", "-o", f"requirements/{name}.lock")


def compile_file(target: str, wanted: str) -> None:
    """A requirement file that is resolved apart from ours."""
    options = ("--python-version", "3.11", "--universal", "--generate-hashes", "--no-header", "--no-annotate")
    addresses = ("--no-emit-index-url", "--no-emit-find-links")
    uv("pip", "compile", "--upgrade", *options, *addresses, "-", "-o", target, given=wanted)


def uv(*words: str, given: str | None = None) -> None:
    """Run uv; what it says is seen."""
    command: Sequence[str] = [str(UV), "-q", *words]
    subprocess.run(command, cwd=ROOT, input=given, text=True, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
