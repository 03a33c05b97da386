"""Base images from Debian packages, for machines without access to a registry.

They are for tests: images of a release are built on the bases in ``bases.lock``. The packages come from mmdebstrap's default mirror, or
from the one in MMDEBSTRAP_MIRROR.
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
"""Release with Python 3.11, which all packages support."""
_PACKAGES = {
    "base": ("python3",),
    "build": ("python3", "python3-venv", "python3-dev", "gcc", "libc6-dev"),
}
_LEFT_OUT = ("doc", "man", "locale")
_CONTAINERFILE = 'FROM scratch\nADD root.tar /\nENV PATH=/usr/local/bin:/usr/bin:/bin\nCMD ["python3"]\n'


def identity() -> str:
    """Return a name for the state of the bases, which is part of the keys of images."""
    return f"debian-{hashlib.sha256(repr((SUITE, _PACKAGES, _LEFT_OUT, _CONTAINERFILE)).encode()).hexdigest()[:12]}"


def descriptions() -> dict[str, str]:
    """Return what the bases are made of, by build argument. A mirror serves the newest versions, so nothing is pinned."""
    arguments = {"BUILD_IMAGE": "build", "BASE_IMAGE": "base"}
    return {
        argument: f"Debian {SUITE} with {', '.join(_PACKAGES[kind])}, in the versions of the mirror"
        for argument, kind in arguments.items()
    }


def make(engine: Engine) -> dict[str, str]:
    """Make missing bases, and return the build arguments that name both.

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
        raise CannotBuildError("mmdebstrap: not installed; run python hack/images packages")
    words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(_PACKAGES[kind])}"]
    words += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
    words += [SUITE, str(archive), *filter(None, [os.environ.get("MMDEBSTRAP_MIRROR")])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotBuildError(f"mmdebstrap failed: {done.stderr.strip()[-1500:]}")
