"""Images of a node: imported archives, and one small own image."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from .configuration import SANDBOX, SOCKET
from .machine import program
from .namespaces import Namespaces

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def load(namespaces: Namespaces, archive: Path) -> list[str]:
    """Import an archive (OCI's or Docker's) into containerd for the kubelet, and return the names of its images.

    Raises:
        OSError: containerd rejects it.
    """
    told = namespaces.run(*_ctr("images", "import", "-"), content=archive)
    names = [line.split()[1] for line in told.splitlines() if line.startswith("unpacking ")]
    for name in names:
        if (full := _full_name(name)) != name:
            namespaces.run(*_ctr("images", "tag", "--force", name, full))
    return names


def write_own(archive: Path, machine: str) -> None:
    """Write the archive of the node's own image: BusyBox, for the sandbox of pods and for tests."""
    layer = _layer(Path(program("/bin/busybox")))
    digest = hashlib.sha256(layer).hexdigest()
    config: dict[str, Any] = {
        "architecture": _ARCHITECTURES[machine], "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sleep", "infinity"]},
    }  # fmt: skip
    blobs = [layer, json.dumps(config).encode()]
    described = [_described(_LAYER, layer), _described(_CONFIG, blobs[1])]
    blobs.append(
        json.dumps({"schemaVersion": 2, "mediaType": _MANIFEST, "config": described[1], "layers": described[:1]}).encode()
    )
    entry = {**_described(_MANIFEST, blobs[2]), "annotations": {"io.containerd.image.name": SANDBOX}}
    files = {
        "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode(),
    }
    files |= {f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}": blob for blob in blobs}
    with tarfile.open(archive, "w") as tar:
        for name, content in files.items():
            _add(tar, name, content)


def _ctr(*words: str) -> list[str]:
    return [program("ctr"), "--address", SOCKET, "--namespace", "k8s.io", *words]


def _full_name(name: str) -> str:
    """Return the name that the kubelet uses: one without a registry belongs to Docker's."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


def _layer(busybox: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        _add(tar, "bin/busybox", busybox.read_bytes(), 0o755)
        for name in (
            "sh",
            "sleep",
            "cat",
            "echo",
            "id",
            "ls",
            "nslookup",
            "wget",
            "touch",
            "stat",
            "seq",
            "hostname",
            "test",
            "httpd",
        ):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name in ("etc", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(folder)
    return content.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))


def _described(kind: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}", "size": len(blob)}
