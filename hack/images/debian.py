"""Base images from Debian packages, for machines where no registry can be reached.

They are for tests: what is released stands on the bases that ``bases.lock`` pins. Which mirror the packages come from is mmdebstrap's
default, or what MMDEBSTRAP_MIRROR says.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from build_error import CannotBuildError

from . import recipes
from .engines import Build, Engine

SUITE = "bookworm"
"""The release whose Python is one that everything here supports: 3.11."""
_PACKAGES = {
    "base": ("python3",),
    "build": ("python3", "python3-venv", "gcc", "libc6-dev"),
}
_LEFT_OUT = ("doc", "man", "locale")
_CONTAINERFILE = 'FROM scratch\nADD root.tar /\nENV PATH=/usr/local/bin:/usr/bin:/bin\nCMD ["python3"]\n'


def identity() -> str:
    """What the bases are, for the keys of images that stand on them."""
    return f"debian-{hashlib.sha256(repr((SUITE, _PACKAGES, _LEFT_OUT, _CONTAINERFILE)).encode()).hexdigest()[:12]}"


def make(engine: Engine) -> dict[str, str]:
    """Make both bases, unless they are there; the build arguments that name them.

    Raises:
        CannotBuildError: mmdebstrap is not installed, or failed.
    """
    tags = {kind: f"finetune-{identity()}-{kind}:1" for kind in _PACKAGES}
    for kind, tag in tags.items():
        archive = recipes.cache() / "bases" / f"{tag.partition(':')[0]}.tar"
        if archive.exists():
            engine.load(archive, tag, tag)
            continue
        archive.parent.mkdir(parents=True, exist_ok=True)
        folder = archive.with_suffix(".making")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        _bootstrap(kind, folder / "root.tar")
        (folder / "Containerfile").write_text(_CONTAINERFILE, encoding="utf-8")
        engine.build(Build(folder / "Containerfile", folder, tag, {}, {}, {}))
        engine.save(tag, tag, folder / "image.tar")
        (folder / "image.tar").rename(archive)
        shutil.rmtree(folder)
    return {"BUILD_IMAGE": engine.reference(tags["build"]), "BASE_IMAGE": engine.reference(tags["base"])}


def _bootstrap(kind: str, archive: Path) -> None:
    if not shutil.which("mmdebstrap"):
        raise CannotBuildError("mmdebstrap is not installed: python hack/images packages")
    words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(_PACKAGES[kind])}"]
    words += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
    words += [SUITE, str(archive), *filter(None, [os.environ.get("MMDEBSTRAP_MIRROR")])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotBuildError(f"mmdebstrap failed: {done.stderr.strip()[-1500:]}")
