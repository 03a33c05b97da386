"""The manifests of a release: ``crds/`` and ``manifests/`` with every image by its digest."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from finetune_operator.core.images import OF_JOBS
from versions import IMAGE, NAME

FOLDERS = ("crds", "manifests")
LEFT_OUT = ("kind",)
"""Overlays for images that were loaded into a node under a tag of their own."""
CONFIGURATIONS = (
    "manifests/base/configuration.yaml",
    "manifests/overlays/namespaced/configuration.yaml",
    "manifests/overlays/selected/configuration.yaml",
)
"""Configurations of the operator that overlays install; users replace them with their own."""
_PINNED = re.compile(rf"{NAME}@(?P<digest>sha256:[0-9a-f]{{64}})")


def write(root: Path, target: Path, digests: Mapping[str, str], registry: str = "") -> None:
    """Write the manifests of a release below ``target``.

    Args:
        root: the checkout.
        target: a folder.
        digests: digest of each image, by name.
        registry: registry and repository that is put before images that have none.
    """
    for folder in FOLDERS:
        shutil.copytree(root / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in LEFT_OUT:
        shutil.rmtree(target / "manifests" / "overlays" / name, ignore_errors=True)
    for path in target.rglob("*.yaml"):
        path.write_text(pin(path.read_text(encoding="utf-8"), digests, registry), encoding="utf-8")
    for name in CONFIGURATIONS:
        path = target / name
        path.write_text(path.read_text(encoding="utf-8") + images(digests, registry), encoding="utf-8")


def pin(text: str, digests: Mapping[str, str], registry: str = "") -> str:
    """Return ``text`` with the digest instead of the tag of every image that has one in ``digests``."""

    def pinned(found: re.Match[str]) -> str:
        digest = digests.get(_image(found))
        prefix = f"{registry}/" if registry and text[found.start() - 1 : found.start()] != "/" else ""
        return f"{prefix}{found['name']}@{digest}" if digest else found[0]

    return IMAGE.sub(pinned, text)


def images(digests: Mapping[str, str], registry: str = "") -> str:
    """Return the key ``images`` of the operator's configuration, or nothing if the release has no image of a Job.

    Training runs in the image of its runtime.
    """
    prefix = f"{registry}/" if registry else ""
    lines = [
        f"  {name}: {prefix}finetune-{name}@{digests[f'finetune-{name}']}\n" for name in OF_JOBS if f"finetune-{name}" in digests
    ]
    return "".join(["images:                # of this release\n", *lines]) if lines else ""


def faults(texts: Iterable[tuple[str, str]], digests: Mapping[str, str], *, draft: bool) -> list[str]:
    """Return a message for every image that is not named by the digest of this release.

    Args:
        texts: names of files and their content.
        digests: digest of each image, by name.
        draft: whether images that are not in ``digests`` may have a tag.
    """
    found = []
    pinned = set()
    for name, text in texts:
        found += [
            f"{name}: {match[0]} has a tag; build the release again"
            for match in IMAGE.finditer(text)
            if not draft or _image(match) in digests
        ]
        for match in _PINNED.finditer(text):
            pinned.add(_image(match))
            if digests.get(_image(match)) != match["digest"]:
                found.append(
                    f"{name}: {match[0]} is not the digest of the release, {digests.get(_image(match), 'which lacks the image')}"
                )
    if "finetune-operator" not in pinned and ("finetune-operator" in digests or not draft):
        found.append("manifests: none names finetune-operator by digest; build the release again")
    return found


def _image(found: re.Match[str]) -> str:
    return found["name"].replace("/", "-")
