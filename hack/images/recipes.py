"""The images, their inputs, and a key that changes with any of them."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_LAYOUT = "1"
"""Changed when this package builds another image from the same files."""
_NEVER_COPIED = {"__pycache__", "Containerfile"}


@dataclass(frozen=True)
class Recipe:
    """An image: its Containerfile, its lock, and the folders and files that are copied into it."""

    name: str
    title: str
    containerfile: str
    lock: str
    sources: tuple[str, ...]
    arguments: tuple[tuple[str, str], ...] = ()

    def files(self) -> Iterator[Path]:
        """Yield all files of the image, except its base."""
        for name in (self.containerfile, self.lock, "images/build", *self.sources):
            path = ROOT / name
            if path.is_file():
                yield path
            for below in sorted(path.rglob("*")) if path.is_dir() else ():
                if below.is_file() and not _NEVER_COPIED & set(below.relative_to(ROOT).parts):
                    yield below

    def key(self, base: str, tag: str) -> str:
        """Return the key of the image: a hash of files, arguments, base and tag."""
        digest = hashlib.sha256(f"{_LAYOUT}\0{self.name}\0{tag}\0{base}\0{self.arguments}".encode())
        for path in self.files():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"\0{path.relative_to(ROOT).as_posix()}\0{content}".encode())
        return digest.hexdigest()[:16]


_TOGETHER = {"dataset": ("dataset", "tokenization")}
"""Programs that share an image because they need the same libraries, by the name of the image."""


def programs_in(image: str) -> tuple[str, ...]:
    """Return the stage programs that run in the image of a program."""
    return _TOGETHER.get(image, (image,))


def _stage(program: str, accelerator: str) -> Recipe:
    own = dict.fromkeys(("__init__.py", "sdk", "chat", "sources", *programs_in(program)))
    suffix = "-cuda" if accelerator == "cuda" else ""
    return Recipe(
        name=program + suffix,
        title=f"finetune-{program}{suffix}",
        containerfile=f"images/finetune_stages/{program}/Containerfile",
        lock=f"requirements/{program}.lock",
        sources=("operator/finetune_contract", *(f"images/finetune_stages/{part}" for part in own)),
        arguments=(("ACCELERATOR", accelerator),),
    )


PROGRAMS = ("dataset", "model", "training", "evaluation", "registration")
ON_GPUS = ("training", "evaluation")
OPERATOR = Recipe(
    "operator", "finetune-operator", "Dockerfile", "requirements/operator.lock",
    (
        "operator/finetune_contract", "operator/finetune_operator", "images/finetune_stages/__init__.py",
        "images/finetune_stages/sdk", "images/finetune_stages/training",
    ),
)  # fmt: skip
STAGES = Recipe(
    "stages", "finetune-stages", "images/Containerfile", "requirements/stages.lock",
    ("operator/finetune_contract", "images/finetune_stages"), (("ACCELERATOR", "cpu"),),
)  # fmt: skip
LIBRARIES = Recipe(
    "openshift-ai-3.3", "openshift-ai-3.3", "hack/compat/Containerfile", "hack/compat/openshift-ai-3.3.lock", (),
    (("SET", "openshift-ai-3.3"),),
)  # fmt: skip
"""The libraries of a training image of OpenShift AI, for tests."""
RECIPES = {
    recipe.name: recipe
    for recipe in (
        OPERATOR,
        STAGES,
        *(_stage(program, "cpu") for program in PROGRAMS),
        *(_stage(program, "cuda") for program in ON_GPUS),
    )
}


def version() -> str:
    """Return the version of the operator's package."""
    text = (ROOT / "operator/finetune_operator/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, flags=re.MULTILINE)
    if found is None:
        raise ValueError("operator/finetune_operator/__init__.py has no __version__")
    return found[1]


def cache() -> Path:
    """Return the folder of images and of all that they are built with."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune-operator" / "images"
