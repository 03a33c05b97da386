"""What is in the folder of a release, by name: ``release.json``, and ``SHA256SUMS`` over all files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

INDEX, SUMS, NOTES = "release.json", "SHA256SUMS", "RELEASE_NOTES.md"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class ReleasedImage:
    """An image of a release.

    Attributes:
        archive: path of the OCI archive in the folder.
        digest: of the image's manifest, as a registry has it.
        sbom: path of the CycloneDX document, with the Python packages and those of the base image.
        provenance: path of the statement about what it was built from.
        lock: path of the lock that its packages are installed from.
        accelerator: ``cpu`` or ``cuda``; empty for the operator.
    """

    archive: str
    digest: str
    sbom: str
    provenance: str
    lock: str
    accelerator: str


@dataclass(frozen=True)
class Release:
    """A release.

    Attributes:
        revision: commit that everything is built from.
        epoch: time of that commit, in seconds. Every file and layer has it.
        base: what the images are built on: ``registry`` or ``debian``.
        bases: references of the base images by digest, or what they were made of, by the build arguments of the Containerfiles.
        draft: whether the tree may differ from the commit, and images may be missing.
        images: by name.
    """

    version: str
    revision: str
    epoch: int
    base: str
    bases: dict[str, str]
    draft: bool
    images: dict[str, ReleasedImage]

    @property
    def wheel(self) -> str:
        """Name of the wheel."""
        return f"finetune_operator-{self.version}-py3-none-any.whl"

    @property
    def sdist(self) -> str:
        """Name of the source distribution."""
        return f"finetune_operator-{self.version}.tar.gz"

    @property
    def manifests(self) -> str:
        """Name of the archive with ``crds/`` and ``manifests/``."""
        return f"finetune-manifests-{self.version}.tar.gz"


def write(folder: Path, release: Release) -> None:
    """Write ``release.json``, and the sums of all files."""
    (folder / INDEX).write_text(json.dumps(asdict(release), indent=2) + "\n", encoding="utf-8")
    lines = (f"{digest_of(folder / name)}  {name}\n" for name in names(folder))
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def read(folder: Path) -> Release:
    """Read ``release.json``.

    Raises:
        OSError: it is not there.
        ValueError: it is not that of a release.
    """
    try:
        found: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        images = {name: ReleasedImage(**image) for name, image in found.pop("images").items()}
        return Release(**found, images=images)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{folder / INDEX}: not the index of a release ({error}); build the release again") from error


def names(folder: Path) -> Iterator[str]:
    """Yield the path of every file below ``folder``, except that of the sums."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / SUMS:
            yield path.relative_to(folder).as_posix()


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
