"""Contents and sizes of image archives: on a node, and compressed for a pull."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

_BLOCK = 1 << 20
_LEVEL = 6
"""Level of gzip that clients of registries use."""


@dataclass(frozen=True)
class Layer:
    """A layer: the step that made it, and its size in bytes."""

    made_by: str
    plain: int
    compressed: int


@dataclass(frozen=True)
class Contents:
    """An image in an archive, in the format of ``docker save``."""

    configuration: dict[str, Any]
    layers: tuple[Layer, ...]

    @property
    def plain(self) -> int:
        """Return the size on a node, in bytes."""
        return sum(layer.plain for layer in self.layers)

    @property
    def compressed(self) -> int:
        """Return the size of a pull, in bytes."""
        return sum(layer.compressed for layer in self.layers)


def configuration(archive: Path) -> dict[str, Any]:
    """Return the configuration of the image: user, environment, labels."""
    with tarfile.open(archive) as tar:
        found: dict[str, Any] = _json(tar, _manifest(tar)["Config"])
        return found


def contents(archive: Path) -> Contents:
    """Return the image and its layers. This reads and compresses all of them."""
    with tarfile.open(archive) as tar:
        manifest = _manifest(tar)
        config = _json(tar, manifest["Config"])
        steps = [step.get("created_by", "") for step in config.get("history", ()) if not step.get("empty_layer")]
        layers = []
        for number, name in enumerate(manifest["Layers"]):
            plain, compressed = _measure(_open(tar, name))
            layers.append(Layer(steps[number] if number < len(steps) else "", plain, compressed))
        return Contents(config, tuple(layers))


def _manifest(tar: tarfile.TarFile) -> dict[str, Any]:
    found: dict[str, Any] = _json(tar, "manifest.json")[0]
    return found


def _json(tar: tarfile.TarFile, name: str) -> Any:
    return json.load(_open(tar, name))


def _open(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    member = tar.getmember(name)
    while member.issym() or member.islnk():  # docker writes a layer that repeats as a link
        member = tar.getmember(str(Path(member.name).parent / member.linkname) if member.issym() else member.linkname)
    file = tar.extractfile(member)
    assert file is not None
    return file


def _measure(layer: IO[bytes]) -> tuple[int, int]:
    start = layer.read(2)
    layer.seek(0)
    stream: IO[bytes] = io.BufferedReader(gzip.GzipFile(fileobj=layer)) if start == b"\x1f\x8b" else layer
    packer, plain, compressed = zlib.compressobj(_LEVEL), 0, 0
    for block in _blocks(stream):
        plain += len(block)
        compressed += len(packer.compress(block))
    return plain, compressed + len(packer.flush())


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    while block := stream.read(_BLOCK):
        yield block
