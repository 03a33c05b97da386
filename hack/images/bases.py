"""The base images of a registry, pinned by digest. ``bases.lock`` has the digests that a registry returned."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from build_error import CannotBuildError

BASES = {"BUILD_IMAGE": "docker.io/library/python:3.12", "BASE_IMAGE": "docker.io/library/python:3.12-slim"}
"""The build arguments of every Containerfile, with their defaults."""
LOCK = Path(__file__).with_name("bases.lock")
_HEADER = "# The digest of each base image, as a registry returned it: python hack/images pin\n"
_DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
_CLIENTS = (
    ("skopeo", "inspect", "--format", "{{.Digest}}", "docker://{image}"),
    ("crane", "digest", "{image}"),
    ("docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}", "{image}"),
)
"""Programs that get a digest from a registry without pulling."""


def pinned(lock: Path = LOCK) -> dict[str, str]:
    """Return the build arguments with digests.

    Raises:
        CannotBuildError: a base is not pinned.
    """
    lines = (line.split() for line in lock.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#"))
    digests = {image: digest for image, digest in lines if _DIGEST.match(digest)}
    for image in BASES.values():
        if image not in digests:
            raise CannotBuildError(
                f"{lock.name}: no digest of {image}; run python hack/images pin, which gets it from the registry, or build on Debian"
                " packages with --base debian"
            )
    return {argument: f"{image.rpartition(':')[0]}@{digests[image]}" for argument, image in BASES.items()}


def pin(lock: Path = LOCK) -> str:
    """Write the digest of every base from the registry into the lock, and return its text.

    Raises:
        CannotBuildError: no client is installed, or the registry does not answer.
    """
    text = _HEADER + "".join(f"{image} {_digest_of(image)}\n" for image in sorted(BASES.values()))
    lock.write_text(text, encoding="utf-8")
    return text


def _digest_of(image: str) -> str:
    command = next((words for words in _CLIENTS if shutil.which(words[0])), None)
    if command is None:
        raise CannotBuildError(
            f"{' or '.join(words[0] for words in _CLIENTS)}: not installed; install one to get digests from a registry"
        )
    words = [word if word.startswith("{{") else word.replace("{image}", image) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    digest = done.stdout.strip()
    if done.returncode != 0 or not _DIGEST.match(digest):
        raise CannotBuildError(f"{image}: the registry returned no digest: {(done.stderr or done.stdout).strip()[-500:]}")
    return digest
