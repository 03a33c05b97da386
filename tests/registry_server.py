"""A real OCI registry, distribution, on the loopback interface by default, and images with the layers that tests make."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import httpx2
import yaml

from control_planes import skip_without_go
from registry.binary import REGISTRY
from web_server import unused_port, wait_until

IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
ARTIFACT_CONFIG = "application/vnd.oci.empty.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
TAR = "application/vnd.oci.image.layer.v1.tar"
TITLE = "org.opencontainers.image.title"


@dataclass(frozen=True)
class Blob:
    """A layer to push."""

    content: bytes
    kind: str = TAR
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return len(self.content)

    @property
    def digest(self) -> str:
        """Its digest."""
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"


@dataclass(frozen=True)
class FileBlob:
    """A layer to push that is a large file."""

    path: Path
    kind: str = TAR
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> Iterator[bytes]:
        """Its content in pieces."""
        with self.path.open("rb") as stream:
            while piece := stream.read(1 << 20):
                yield piece

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return self.path.stat().st_size

    @cached_property
    def digest(self) -> str:
        """Its digest."""
        with self.path.open("rb") as stream:
            return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


class RegistryServer:
    """A registry with an empty folder. A context manager.

    Args:
        tokens: address of a server for tokens. The registry then requires an Authorization header and believes every one: the server
            for tokens decides.
        password: require user frodo with his password.
        address: IP address to listen at.
    """

    USER: ClassVar[tuple[str, str]] = ("frodo", "baggins")
    _HASH = "frodo:$2y$05$926C3y10Quzn/LnqQH86VOEVh/18T6RnLaS.khre96jLNL/7e.K5W\n"

    def __init__(
        self,
        folder: Path,
        *,
        tokens: str = "",
        password: bool = False,
        certificate: Path | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self.folder = folder
        self.port = unused_port(address)
        self.host = f"{address}:{self.port}"
        self._certificate = certificate
        self._login = {"Authorization": "Bearer any"} if tokens else {}
        self._auth: dict[str, Any] = {"silly": {"realm": tokens, "service": "tests"}} if tokens else {}
        if password:
            folder.mkdir(parents=True)
            (folder / "users").write_text(self._HASH)
            self._auth = {"htpasswd": {"realm": "tests", "path": str(folder / "users")}}

    def __enter__(self) -> Self:
        skip_without_go()
        self.folder.mkdir(parents=True, exist_ok=True)
        tls = {"tls": {"certificate": str(self._certificate), "key": str(self._certificate)}} if self._certificate else {}
        configuration = {
            "version": "0.1", "log": {"level": "warn"}, "http": {"addr": self.host, **tls},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "data")}}, **({"auth": self._auth} if self._auth else {}),
        }  # fmt: skip
        (self.folder / "config.yml").write_text(yaml.safe_dump(configuration))
        self._log = (self.folder / "log").open("wb")
        command = [str(REGISTRY.find()), "serve", str(self.folder / "config.yml")]
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, cwd=self.folder)
        scheme = "https" if self._certificate else "http"
        login = self.USER if "htpasswd" in self._auth else None
        self._client = httpx2.Client(
            base_url=f"{scheme}://{self.host}", verify=False, auth=login, headers=self._login, timeout=60
        )
        wait_until(self._answers)
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._client.close()
        self._process.terminate()
        self._process.wait(20)
        self._log.close()

    def push(self, name: str, layers: Sequence[Blob | FileBlob], config: str = IMAGE_CONFIG, **changes: Any) -> str:
        """Push blobs and their manifest and return its digest; ``name`` is ``<repository>:<tag>``.

        Args:
            config: media type of the configuration.
            changes: other values of the manifest.
        """
        repository = name.partition(":")[0]
        settings = Blob(b"{}", config)
        for blob in (settings, *layers):
            self._push_blob(repository, blob)
        manifest = {
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(settings), "layers": [descriptor(layer) for layer in layers],
        }  # fmt: skip
        return self.push_manifest(name, {**manifest, **changes})

    def push_manifest(self, name: str, manifest: Mapping[str, Any]) -> str:
        """Push a manifest or an index and return its digest."""
        repository, _, tag = name.partition(":")
        content = json.dumps(manifest).encode()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        kind = str(manifest.get("mediaType", MANIFEST))
        answer = self._client.put(f"/v2/{repository}/manifests/{tag or digest}", content=content, headers={"Content-Type": kind})
        answer.raise_for_status()
        return digest

    def stored(self, digest: str) -> Path:
        """The file in which the registry keeps a blob."""
        number = digest.removeprefix("sha256:")
        return self.folder / "data/docker/registry/v2/blobs/sha256" / number[:2] / number / "data"

    def _push_blob(self, repository: str, blob: Blob | FileBlob) -> None:
        started = self._client.post(f"/v2/{repository}/blobs/uploads/")
        started.raise_for_status()
        location = started.headers["Location"]  # it has a query already
        self._client.put(f"{location}&digest={blob.digest}", content=blob.content).raise_for_status()

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError((self.folder / "log").read_text())
        try:
            self._client.get("/v2/")
        except httpx2.HTTPError:
            time.sleep(0.05)
            return False
        return True


def descriptor(blob: Blob | FileBlob) -> dict[str, Any]:
    """The descriptor of a blob."""
    found: dict[str, Any] = {"mediaType": blob.kind, "digest": blob.digest, "size": blob.size}
    return {**found, "annotations": dict(blob.annotations)} if blob.annotations else found


def archive(files: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    """A tar archive of files, and of members that are anything else."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                made.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    """A member that is a link, or of another kind."""
    member = tarfile.TarInfo()
    member.type, member.linkname = kind, target
    return member


def layer(files: Mapping[str, bytes | tarfile.TarInfo], compression: str = "") -> Blob:
    """A layer with these files, compressed with ``gzip`` or ``zstd`` or not."""
    content = archive(files)
    if compression == "gzip":
        content = gzip.compress(content, 1)
    elif compression == "zstd":
        content = zstandard().compress(content)
    return Blob(content, f"{TAR}+{compression}" if compression else TAR)


def zstandard() -> Any:
    """The module for Zstandard, of the standard library or its backport."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def model_files(folder: Path, directory: str = "models/") -> dict[str, bytes | tarfile.TarInfo]:
    """The files of a model, below a directory."""
    return {f"{directory}{path.name}": path.read_bytes() for path in sorted(folder.iterdir())}


def titled(folder: Path) -> list[Blob]:
    """The files of a model, each a layer of an artifact."""
    return [Blob(path.read_bytes(), TAR, {TITLE: path.name}) for path in sorted(folder.iterdir())]
