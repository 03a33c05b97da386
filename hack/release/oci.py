"""OCI archives: images as a registry has them, with compressed layers and a digest.

https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Self, cast

from build_error import CannotBuildError

from . import tar

Json = dict[str, Any]
_BLOCK = 1 << 20


def write(image: Path, target: Path, name: str, epoch: int) -> str:
    """Convert an archive of ``docker save`` into an OCI archive, and return the digest of the image.

    The same image and epoch make the same bytes. ``skopeo copy --preserve-digests`` pushes the image with this digest.

    Args:
        image: the archive of ``docker save``.
        target: the OCI archive to write.
        name: name and tag that the archive has for the image.
        epoch: time of every file in the archive, in seconds.

    Raises:
        CannotBuildError: skopeo is not installed, or failed.
    """
    if not shutil.which("skopeo"):
        raise CannotBuildError("skopeo: not installed; run python hack/images packages")
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        layout = Path(scratch, "layout")
        command = ["skopeo", "copy", "--quiet", f"docker-archive:{image}", f"oci:{layout}:{name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CannotBuildError(f"{name}: skopeo cannot convert the image: {done.stderr.strip()[-1000:]}")
        tar.write(layout, target, epoch)
    with Archive(target) as archive:
        return archive.digest


class Archive:
    """An OCI archive with one image, opened for reading.

    Raises:
        ValueError: it is not the archive of one image.
    """

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path)  # noqa: SIM115 - closed by __exit__
        try:
            index = self._json("index.json")
            (described,) = index["manifests"]
            self.digest: str = described["digest"]
            self.manifest: Json = self._json(_blob(self.digest))
        except (KeyError, TypeError, ValueError) as error:
            self._tar.close()
            raise ValueError(f"{path}: not an OCI archive with one image ({error!r})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    @property
    def configuration(self) -> Json:
        """The configuration of the image: architecture, user, labels."""
        return self._json(_blob(self.manifest["config"]["digest"]))

    def wrong_blobs(self) -> list[str]:
        """Return the digests of the blobs whose content has another digest, and of those that the image lacks."""
        there = {member.name for member in self._tar if member.isfile() and member.name.startswith("blobs/sha256/")}
        named = {self.digest, *(one["digest"] for one in (self.manifest["config"], *self.manifest["layers"]))}
        missing = {digest for digest in named if _blob(digest) not in there}
        return sorted(missing | {f"sha256:{Path(name).name}" for name in there if self._sum(name) != Path(name).name})

    def read(self, *paths: str) -> dict[str, bytes]:
        """Return those of the files that the image has, each from its uppermost layer. Each layer is read once at most."""
        missing, found = {path.lstrip("/"): path for path in paths}, dict[str, bytes]()
        for layer in reversed(self.manifest["layers"]):
            if not missing:
                break
            with tarfile.open(fileobj=self._open(_blob(layer["digest"])), mode="r|*") as files:
                for member in files:
                    if member.isfile() and (path := missing.pop(member.name.removeprefix("./").lstrip("/"), "")):
                        found[path] = cast("Any", files.extractfile(member)).read()
        return found

    def _json(self, name: str) -> Json:
        return cast("Json", json.load(self._open(name)))

    def _open(self, name: str) -> Any:
        return self._tar.extractfile(name)

    def _sum(self, name: str) -> str:
        digest, file = hashlib.sha256(), self._open(name)
        while block := file.read(_BLOCK):
            digest.update(block)
        return digest.hexdigest()


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"
