"""The base images of a registry, pinned by digest. ``bases.lock`` holds what a registry said, and nothing that was made up."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from build_error import CannotBuildError

BASES = {"BUILD_IMAGE": "docker.io/library/python:3.12", "BASE_IMAGE": "docker.io/library/python:3.12-slim"}
"""The build arguments of every Containerfile, with their defaults."""
LOCK = Path(__file__).with_name("bases.lock")
_HEADER = "# The digest of each base image, as a registry told it: python hack/images pin\n"
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
_ASKING = (
    ("skopeo", "inspect", "--format", "{{.Digest}}", "docker://{image}"),
    ("crane", "digest", "{image}"),
    ("docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", "{image}"),
)
"""Programs that ask a registry for a digest without pulling anything."""


def pinned(lock: Path = LOCK) -> dict[str, str]:
    """The build arguments with digests.

    Raises:
        CannotBuildError: a base is not pinned.
    """
    lines = (line.split() for line in lock.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#"))
    digests = {image: digest for image, digest in lines if _DIGEST.match(digest)}
    for image in BASES.values():
        if image not in digests:
            raise CannotBuildError(
                f"{lock.name} has no digest of {image}: python hack/images pin asks the registry for it;"
                " without a registry, --base debian builds on Debian packages"
            )
    return {argument: f"{image.rpartition(':')[0]}@{digests[image]}" for argument, image in BASES.items()}


def pin(lock: Path = LOCK) -> str:
    """Ask the registry for the digest of every base, and write them down; the new lock.

    Raises:
        CannotBuildError: no program can ask, or the registry does not answer.
    """
    text = _HEADER + "".join(f"{image} {_ask(image)}\n" for image in sorted(BASES.values()))
    lock.write_text(text, encoding="utf-8")
    return text


def _ask(image: str) -> str:
    command = next((words for words in _ASKING if shutil.which(words[0])), None)
    if command is None:
        raise CannotBuildError(f"none of {', '.join(words[0] for words in _ASKING)} is installed to ask a registry for a digest")
    words = [word if word.startswith("{{") else word.replace("{image}", image) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    digest = done.stdout.strip()
    if done.returncode != 0 or not _DIGEST.match(digest):
        raise CannotBuildError(f"{image}: the registry did not tell a digest: {(done.stderr or done.stdout).strip()[-500:]}")
    return digest
