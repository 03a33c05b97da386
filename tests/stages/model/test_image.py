"""Models from a registry: a real one, with images of layers that are made here."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from finetune_contract.documents import ModelInputs
from finetune_contract.uris import ImageReference
from finetune_stages.model import image
from finetune_stages.model.obtain import MARGIN
from finetune_stages.sdk import Context, StageError
from finetune_stages.sources import downloads
from finetune_stages.sources.origin import MODEL
from registry_server import (
    ARTIFACT_CONFIG,
    INDEX,
    MANIFEST,
    TAR,
    TITLE,
    Blob,
    RegistryServer,
    layer,
    link,
    model_files,
    titled,
)
from stages.model.images import obtain, rejection, same
from tcp_proxy import TcpProxy

pytestmark = pytest.mark.go


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_a_container_image(context: Context, registry: RegistryServer, tiny_model: Path, compression: str) -> None:
    files = {"etc/os-release": b"ID=ubi", "models": link("", tarfile.DIRTYPE), **model_files(tiny_model, "./models/")}
    registry.push(f"team/model{compression}:1", [layer(files, compression)])
    obtained = obtain(context, f"oci://{registry.host}/team/model{compression}:1")
    assert same(obtained, tiny_model)
    assert all((obtained.entry / path.name).stat().st_mode & 0o777 == 0o664 for path in tiny_model.iterdir())
    assert not obtained.reused
    assert obtain(context, f"oci://{registry.host}/team/model{compression}:1").reused


def test_an_artifact_with_one_file_in_each_layer(context: Context, registry: RegistryServer, tiny_model: Path) -> None:
    extra = [Blob(b"0" * 1000, TAR, {TITLE: "pytorch_model.bin"})]
    digest = registry.push("artifact:1", [*titled(tiny_model), *extra], ARTIFACT_CONFIG)
    obtained = obtain(context, f"oci://{registry.host}/artifact@{digest}")
    assert same(obtained, tiny_model)
    assert obtained.revision == digest


def test_an_artifact_with_a_packed_directory_and_files(context: Context, registry: RegistryServer, tiny_model: Path) -> None:
    files = model_files(tiny_model, "tiny/")
    weights = files.pop("tiny/model.safetensors")
    assert isinstance(weights, bytes)
    packed = Blob(layer(files, "gzip").content, "application/x", {TITLE: "tiny", "io.deis.oras.content.unpack": "true"})
    single = Blob(weights, "application/vnd.cncf.model.weight.v1.raw", {"org.cncf.model.filepath": "tiny/model.safetensors"})
    registry.push("packed:1", [packed, single], ARTIFACT_CONFIG)
    assert same(obtain(context, f"oci://{registry.host}/packed:1"), tiny_model)


def test_later_layers_replace_and_remove_files(context: Context, registry: RegistryServer, tiny_model: Path) -> None:
    files = model_files(tiny_model)
    lower = {
        **files, "models/config.json": b"old", "models/adapter_config.json": b"{}", "models/old/config.json": b"{}", "models/README.md": b"old",
    }  # fmt: skip
    upper = {
        "models/config.json": files["models/config.json"], "models/.wh.adapter_config.json": b"", "models/old/.wh..wh..opq": b"",
        "models/README.md": files["models/README.md"],
    }  # fmt: skip
    registry.push("layered:1", [layer(lower), layer(upper, "gzip")])
    assert same(obtain(context, f"oci://{registry.host}/layered:1"), tiny_model)
    removed = {".wh.models": b"", **{name.replace("models/", "models/v2/"): content for name, content in files.items()}}
    registry.push("layered:2", [layer(lower), layer(removed)])
    assert same(obtain(context, f"oci://{registry.host}/layered:2"), tiny_model)


def test_links_inside_the_directory_are_followed(context: Context, registry: RegistryServer, tiny_model: Path) -> None:
    """As in a copy of the hub's cache: names are links to contents."""
    files = model_files(tiny_model, "models/blobs/")
    linked: dict[str, Any] = {
        f"models/snapshots/a/{path.name}": link(f"../../blobs/{path.name}") for path in tiny_model.iterdir()
    }
    linked["models/snapshots/a/README.md"] = link("models/blobs/README.md", tarfile.LNKTYPE)
    linked["models/snapshots/a/tokenizer.json"] = link("/models/here/tokenizer.json")
    files["models/here"] = link("blobs")
    (config,) = [files.pop(name) for name in list(files) if name.endswith("/config.json")]
    linked["models/snapshots/a/config.json"] = config
    registry.push("linked:1", [layer({**files, **linked})])
    assert same(obtain(context, f"oci://{registry.host}/linked:1"), tiny_model)


@pytest.mark.parametrize("platforms", [["linux/s390x"], ["linux/arm64", "linux/amd64", "unknown/unknown"]])
def test_an_index_of_platforms(context: Context, registry: RegistryServer, tiny_model: Path, platforms: list[str]) -> None:
    manifests = []
    for platform in platforms:
        system, _, architecture = platform.partition("/")
        right = architecture == "amd64" or len(platforms) == 1
        content = layer(model_files(tiny_model) if right else {"models/config.json": b"not this one"})
        digest = registry.push("many:part", [content])
        manifests.append({
            "mediaType": MANIFEST, "digest": digest, "size": registry.stored(digest).stat().st_size,
            "platform": {"os": system, "architecture": architecture},
        })  # fmt: skip
    tag = f"many:{len(platforms)}"
    digest = registry.push_manifest(tag, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    obtained = obtain(context, f"oci://{registry.host}/{tag}")
    assert same(obtained, tiny_model)
    assert obtained.revision == digest


def test_the_program_resolves_a_tag_and_downloads_once(
    run_stage_program: Any, registry: RegistryServer, stage: Any, model: Path
) -> None:
    uri = f"oci://{registry.host}/program:latest"
    digest = registry.push("program:latest", titled(model), ARTIFACT_CONFIG)
    first = run_stage_program("model", ModelInputs(uri))
    assert first.code == 0, first.errors
    assert (first.result.outputs["revision"], first.result.message[-len(uri) :]) == (digest, uri)
    stage.linked()
    assert stage.nothing_is_left()
    stage.as_another_run()
    again = run_stage_program("model", ModelInputs(uri))
    assert again.result.message.startswith("the same as run demo: "), again.output
    assert "downloading" not in again.output
    (model / "README.md").write_text("another one")
    registry.push("program:latest", titled(model), ARTIFACT_CONFIG)
    stage.as_another_run("third")
    moved = run_stage_program("model", ModelInputs(uri))
    assert moved.code == 0, moved.errors
    assert moved.result.outputs["revision"] != digest


def test_a_digest_in_the_cache_needs_no_registry(context: Context, registry: RegistryServer, tiny_model: Path) -> None:
    with TcpProxy(registry.port) as proxy:
        host = f"127.0.0.1:{proxy.port}"
        digest = registry.push("pinned:1", titled(tiny_model), ARTIFACT_CONFIG)
        obtain(context, f"oci://{host}/pinned@{digest}")
    assert obtain(context, f"oci://{host}/pinned@{digest}").reused
    assert image.is_unchanged(context, ImageReference(host, "pinned", None, digest), digest)
    reason, message = rejection(context, f"oci://{host}/pinned:1")
    assert reason == "ModelUnreachable"
    assert message.startswith(f"model.uri: oci://{host}/pinned:1: http://{host} is unreachable or sent an invalid response (")


@pytest.mark.parametrize("kind", ["image", "artifact"])
def test_a_damaged_blob_is_found(context: Context, registry: RegistryServer, tiny_model: Path, kind: str) -> None:
    if kind == "image":
        blobs = [layer(model_files(tiny_model))]
        registry.push(f"damaged-{kind}:1", blobs)
        damaged = blobs[0]
    else:
        blobs = titled(tiny_model)
        registry.push(f"damaged-{kind}:1", blobs, ARTIFACT_CONFIG)
        (damaged,) = [blob for blob in blobs if blob.annotations[TITLE] == "model.safetensors"]
    path = registry.stored(damaged.digest)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    reason, message = rejection(context, f"oci://{registry.host}/damaged-{kind}:1")
    assert reason == "ModelUnreachable"
    assert "the download is damaged" in message
    assert damaged.digest.removeprefix("sha256:") in message
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert same(obtain(context, f"oci://{registry.host}/damaged-{kind}:1"), tiny_model)


@pytest.mark.parametrize("kind", ["image", "artifact"])
def test_a_download_that_breaks_off_is_continued_by_the_next_attempt(
    workspace_context: Any, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, kind: str
) -> None:
    blobs = [layer(model_files(tiny_model))] if kind == "image" else titled(tiny_model)
    registry.push(f"resumed-{kind}:1", blobs, *([] if kind == "image" else [ARTIFACT_CONFIG]))
    monkeypatch.setattr(downloads, "PART", 64 << 10)
    monkeypatch.setattr(downloads, "CONNECTIONS", 1)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    fetched: list[tuple[str, int]] = []
    original = downloads._fetch
    with TcpProxy(registry.port) as proxy:

        def fetch(file: Any, begin: int, transfer: Any) -> None:
            fetched.append((file.identity, begin))
            if len(stopped) == 0 and begin == 2 * downloads.PART:
                stopped.append(True)
                raise downloads.Dropped(StageError(MODEL.unreachable, "cut off")).fault
            original(file, begin, transfer)

        stopped: list[bool] = []
        monkeypatch.setattr(downloads, "_fetch", fetch)
        uri = f"oci://127.0.0.1:{proxy.port}/resumed-{kind}:1"
        assert rejection(workspace_context("1.1"), uri) == ("ModelUnreachable", "cut off")
        before, fetched[:] = list(fetched[:-1]), []
        proxy.drops = [30_000, 50_000]
        assert same(obtain(workspace_context("1.2"), uri), tiny_model)
    assert not {*before} & {*fetched}


@pytest.mark.parametrize("artifact", [False, True])
def test_the_holes_of_a_download_that_broke_off_need_room(
    context: Context, registry: RegistryServer, tiny_model: Path, artifact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = titled(tiny_model) if artifact else [layer(model_files(tiny_model))]
    digest = registry.push("room:1", blobs, *([ARTIFACT_CONFIG] if artifact else []))
    attempt = context.path(context.layout.attempt(context.document.stage, context.attempt))
    folder = attempt / f"download-{image._key(digest)[:12]}"
    folder.mkdir(parents=True)
    with (folder / ("model.safetensors" if artifact else "0")).open("wb") as target:
        target.truncate(1 << 30)  # as the download prepares it
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=MARGIN))
    reason, message = rejection(context, f"oci://{registry.host}/room:1")
    assert (reason, message.partition(": it needs")[0]) == ("WorkspaceFull", f"oci://{registry.host}/room:1")
