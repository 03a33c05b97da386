"""Models from a registry: a real one, with images of layers that are made here."""

from __future__ import annotations

import base64
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from certificates import self_signed
from finetune_contract.documents import ModelInputs
from finetune_contract.uris import ImageReference
from finetune_stages.model import image
from finetune_stages.model.check import Requirements
from finetune_stages.model.obtain import Obtained
from finetune_stages.sdk import Context, StageError
from finetune_stages.sources import downloads, layers
from finetune_stages.sources.origin import MODEL
from finetune_stages.sources.uri import parse_uri
from registry_server import (
    ARTIFACT_CONFIG,
    INDEX,
    MANIFEST,
    TAR,
    TITLE,
    Blob,
    RegistryServer,
    archive,
    layer,
    link,
    model_files,
    titled,
)
from tcp_proxy import TcpProxy
from web_server import Answer, Request, Server, unused_port

pytestmark = pytest.mark.go


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry that everybody may read."""
    with RegistryServer(tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pull secret and no CA bundle."""
    for name in ("FINETUNE_PULL_SECRET", "OCI_PULL_SECRET_MODEL_DOWNLOAD", "FINETUNE_SOURCE_CA"):
        monkeypatch.delenv(name, raising=False)


def obtain(context: Context, uri: str) -> Obtained:
    reference = parse_uri(uri, MODEL)
    assert isinstance(reference, ImageReference)
    return image.obtain(context, reference, Requirements())


def rejection(context: Context, uri: str) -> tuple[str, str]:
    with pytest.raises(StageError) as caught:
        obtain(context, uri)
    return caught.value.reason.name, caught.value.message


def same(obtained: Obtained, folder: Path) -> bool:
    """Return whether a cache entry has exactly the files of a model."""
    names = {path.name for path in folder.iterdir()}
    return {path.name for path in obtained.entry.iterdir()} == {*names, ".finetune.json"} and all(
        (obtained.entry / name).read_bytes() == (folder / name).read_bytes() for name in names
    )


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


Made = Callable[[Path], list[Blob]]
NO_MODEL = "set an image with a model below /models."
AGAIN = "build and push the image again."


def _with(**changes: Any) -> Made:
    """A layer with the model and other members; ``__`` in a name is a slash and ``_`` a dot."""
    more = {name.replace("__", "/"): content for name, content in changes.items()}
    return lambda folder: [layer({**model_files(folder), **more})]


def _claims_much(_folder: Path) -> list[Blob]:
    member = tarfile.TarInfo("models/config.json")
    member.size = 1 << 60
    return [Blob(member.tobuf() + b"\0" * 1024)]


def _sparse(_folder: Path) -> list[Blob]:
    """A file of 3 GiB that is a hole, as ``tar --sparse`` stores it."""
    member = tarfile.TarInfo("models/config.json")
    member.size = 512
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"00000000000\0" + b"00000001000\0"  # offset and bytes of the only part
    header[483:495] = b"30000000000\0"  # real size in octal: 3 GiB
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header[:512]):06o}\0 ".encode()
    return [Blob(bytes(header[:512]) + bytes(512 + 1024))]


def _long_header(_folder: Path) -> list[Blob]:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    return [Blob(member.tobuf() + b"\0" * 4096)]


BROKEN: dict[str, tuple[Made, str, str]] = {
    "no model": (lambda _: [layer({"etc/passwd": b"root"})], "ModelNotFound", f"{{first}}: it has no files below /models; {NO_MODEL}"),
    "two models": (
        lambda folder: [layer({**model_files(folder, "models/a/"), **model_files(folder, "models/b/")})],
        "ModelNotFound", f"{{first}}: it has 2 directories with a config.json (/models/a, /models/b), and a run trains one model; {NO_MODEL}",
    ),
    "no configuration": (lambda _: [layer({"models/README.md": b"x"})], "ModelIncomplete", "{name}: config.json is missing; use a model saved by transformers."),
    "GGUF": (lambda _: [layer({"models/llama.Q4_K_M.gguf": b"GGUF"})], "ModelIncomplete", "{name}: config.json is missing, and the weights are in GGUF, which cannot be trained; use the original model."),
    "adapter": (lambda _: [layer({"models/adapter_config.json": b"{}", "models/adapter_model.safetensors": b""})], "ModelUnsupported", "{name}: adapter_config.json belongs to an adapter such as LoRA, which is not a complete model or modifies the model in the same directory; merge it into its base model (merge_and_unload) and use a directory without the adapter's files."),
    "traversal": (_with(**{"models/../../etc/passwd": b"x"}), "ModelCorrupt", f"{{layer}} has the path 'models/../../etc/passwd', which leads out of the image; {AGAIN}"),
    "long name": (_with(**{f"models/{'x' * 300}.json": b"{}"}), "ModelCorrupt", f"{{layer}} has the path 'models/{'x' * 193}', which is not a valid name of a file; {AGAIN}"),
    "device": (_with(models__gpu=link("", tarfile.CHRTYPE)), "ModelCorrupt", f"{{layer}} has models/gpu, which is a device or a pipe; {AGAIN}"),
    "pipe": (_with(models__pipe=link("", tarfile.FIFOTYPE)), "ModelCorrupt", f"{{layer}} has models/pipe, which is a device or a pipe; {AGAIN}"),
    "link out": (_with(models__merges=link("../../etc/passwd")), "ModelCorrupt", "{name}: models/merges is a link to a file that is not below /models; put the file itself into the image."),
    "absolute link out": (_with(models__merges=link("/etc/passwd")), "ModelCorrupt", "{name}: models/merges is a link to a file that is not below /models; put the file itself into the image."),
    "dangling link": (_with(models__merges=link("nothing")), "ModelCorrupt", "{name}: models/merges is a link to a file that is not below /models; put the file itself into the image."),
    "link to itself": (_with(models__merges=link("merges")), "ModelCorrupt", "{name}: models/merges is a link to a file that is not below /models; put the file itself into the image."),
    "hard link out": (_with(models__merges=link("etc/passwd", tarfile.LNKTYPE)), "ModelCorrupt", f"{{layer}} has a hard link models/merges to etc/passwd, which is not a file below /models; {AGAIN}"),
    "not an archive": (lambda _: [Blob(b"<html>" * 200)], "ModelCorrupt", f"{{layer}} is not a readable archive (invalid header); {AGAIN}"),
    "cut gzip": (lambda folder: [Blob(layer(model_files(folder), "gzip").content[:-2000])], "ModelCorrupt", f"{{layer}} is not a readable archive (Compressed file ended before the end-of-stream marker was reached); {AGAIN}"),
    "cut zstd": (lambda folder: [Blob(layer(model_files(folder), "zstd").content[:-2000])], "ModelCorrupt", f"{{layer}} is not a readable archive (Compressed file ended before the end-of-stream marker was reached); {AGAIN}"),
    "cut archive": (lambda folder: [Blob(archive(model_files(folder))[:100_000])], "ModelCorrupt", f"{{layer}} is not a readable archive (unexpected end of data); {AGAIN}"),
    "empty layer": (lambda _: [Blob(b"")], "ModelCorrupt", f"{{layer}} is not a readable archive (empty file); {AGAIN}"),
    "long header": (_long_header, "ModelCorrupt", f"{{layer}} is not a readable archive (a header has 1,073,741,824 bytes); {AGAIN}"),
    "sparse": (_sparse, "ModelCorrupt", f"{{layer}} has models/config.json, which is a sparse file; {AGAIN}"),
    "pickle": (
        lambda folder: [layer({name.replace("model.safetensors", "pytorch_model.bin"): content for name, content in model_files(folder).items()})],
        "ModelIncomplete", "{name}: the weights are in PyTorch's pickle format (.bin); convert it to safetensors with save_pretrained of transformers.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_each_broken_image_has_a_reason_and_one_sentence(
    context: Context, registry: RegistryServer, tiny_model: Path, case: str
) -> None:
    make, reason, sentence = BROKEN[case]
    blobs = make(tiny_model)
    name = f"broken/{case.lower().replace(' ', '-')}:1"
    registry.push(name, blobs)
    shown = f"oci://{registry.host}/{name}"
    expected = sentence.replace("{first}", f"model.uri: {shown}").replace("{layer}", f"{shown}: layer {blobs[0].digest}")
    assert rejection(context, shown) == (reason, expected.replace("{name}", shown))
    assert not context.path("cache/models").exists()


def test_a_file_that_does_not_fit_is_not_written(context: Context, registry: RegistryServer, tiny_model: Path) -> None:
    registry.push("huge:1", _claims_much(tiny_model))
    reason, message = rejection(context, f"oci://{registry.host}/huge:1")
    assert reason == "WorkspaceFull"
    assert message.startswith(f"oci://{registry.host}/huge:1: it needs 1,152,921,504,671 MB, and the workspace has ")


def test_a_layer_that_unpacks_to_too_much(context: Context, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_LEAST", 1 << 20)
    bomb = layer({"etc/zeros": b"\0" * (300 << 20)}, "gzip")
    registry.push("bomb:1", [bomb])
    assert rejection(context, f"oci://{registry.host}/bomb:1") == (
        "ModelCorrupt", f"oci://{registry.host}/bomb:1: layer {bomb.digest} unpacks to more than 0 GiB; {AGAIN}",
    )  # fmt: skip


def test_a_layer_with_too_many_files(context: Context, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_MOST_ENTRIES", 5)
    many = layer({f"models/{number}": b"" for number in range(9)})
    registry.push("crowd:1", [many])
    assert rejection(context, f"oci://{registry.host}/crowd:1") == (
        "ModelCorrupt", f"oci://{registry.host}/crowd:1: layer {many.digest} has more than 5 files; {AGAIN}",
    )  # fmt: skip


MANIFESTS: list[tuple[dict[str, Any], str]] = [
    ({"mediaType": INDEX, "manifests": []}, f"its index has no images; {NO_MODEL}"),
    (
        {"mediaType": INDEX, "manifests": [{"digest": "sha256:" + "0" * 64, "platform": {"os": "linux", "architecture": one}} for one in ("arm64", "s390x")]},
        f"its index has images for linux/arm64, linux/s390x, and none for linux/amd64; {NO_MODEL}",
    ),
]  # fmt: skip


class Other(Server):
    """Answers every request for a manifest with one content."""

    content: bytes = b""
    status = 200
    challenge = ""

    def answer(self, request: Request, body: bytes) -> Answer:
        headers = {"WWW-Authenticate": self.challenge} if self.challenge else {}
        return Answer(self.status, {"Content-Type": MANIFEST, **headers}, self.content)


LAYER = {"mediaType": TAR, "digest": "sha256:" + "0" * 64, "size": 3}
CONTENTS: list[tuple[bytes, int, str, str, str]] = [
    (b"<html>", 200, "", "ModelNotFound", "its manifest is not JSON; push the image again, or use another registry."),
    (b"[]", 200, "", "ModelNotFound", "its manifest is not a JSON object; push the image again, or use another registry."),
    (b" " * (5 << 20), 200, "", "ModelNotFound", "its manifest is larger than 4 MiB; push the image again, or use another registry."),
    (b'{"schemaVersion": 1}', 200, "", "ModelNotFound", f"its manifest is neither of the OCI image specification nor of Docker, version 2; {NO_MODEL}"),
    (b'{"schemaVersion": 2, "layers": []}', 200, "", "ModelNotFound", f"its manifest has no layers, or more than 10,000; {NO_MODEL}"),
    (json.dumps({"schemaVersion": 2, "layers": [{**LAYER, "size": "3"}]}).encode(), 200, "", "ModelNotFound", f"its manifest has a layer without a SHA-256 digest or without a size; {NO_MODEL}"),
    (json.dumps({"schemaVersion": 2, "layers": [{**LAYER, "digest": "sha256:../../x"}]}).encode(), 200, "", "ModelNotFound", f"its manifest has a layer without a SHA-256 digest or without a size; {NO_MODEL}"),
    (json.dumps({"schemaVersion": 2, "layers": [{**LAYER, "annotations": {TITLE: "../config.json"}}]}).encode(), 200, "", "ModelNotFound", f"its manifest has a layer with the name '../config.json', which is not a path below a directory; {NO_MODEL}"),
    *[(json.dumps({"schemaVersion": 2, **index}).encode(), 200, "", "ModelNotFound", words) for index, words in MANIFESTS],
    (b"", 404, "", "ModelNotFound", "{server} has no repository x with the tag 1; correct model.uri."),
    (b"", 418, "", "ModelNotFound", "{server} rejected the request with status 418; correct model.uri."),
    (b"", 503, "", "ModelUnreachable", "{server} responded with status 503."),
    (b"", 429, "", "ModelUnreachable", "{server} responded with status 429."),
    (b"", 401, "", "ModelForbidden", "{host} denies access without credentials, or the image does not exist (status 401); set model.pullSecretRef, or correct model.uri."),
    (b"", 401, 'Bearer realm="ftp://x"', "ModelNotFound", "the registry names 'ftp://x' as the address for tokens; push the image again, or use another registry."),
]  # fmt: skip


@pytest.mark.parametrize(("content", "status", "challenge", "reason", "sentence"), CONTENTS)
def test_what_registries_answer(
    context: Context, content: bytes, status: int, challenge: str, reason: str, sentence: str
) -> None:
    with Other() as server:
        server.content, server.status, server.challenge = content, status, challenge
        host = server.url.removeprefix("http://")
        expected = f"model.uri: oci://{host}/x:1: {sentence.replace('{server}', server.url).replace('{host}', host)}"
        assert rejection(context, f"oci://{host}/x:1") == (reason, expected)


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


class Tokens(Server):
    """Gives tokens to one user and to one owner of a refresh token."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[str] = []
        self.redirect = ""

    def answer(self, request: Request, body: bytes) -> Answer:
        self.queries.append(request.path)
        if self.redirect:
            return Answer(307, {"Location": self.redirect})
        right = base64.b64encode(b"frodo:baggins").decode()
        if request.headers.get("authorization") == f"Basic {right}" or b"refresh_token=ring" in body:
            return Answer(200, {"Content-Type": "application/json"}, b'{"access_token": "any"}')
        return Answer(401, {"Content-Type": "application/json"}, b"{}")


def secret(host: str, **entry: str) -> str:
    return json.dumps({"auths": {host: entry}})


def basic(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_a_registry_with_tokens(context: Context, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path) -> None:
    with Tokens() as tokens, RegistryServer(tmp_path / "closed", tokens=f"{tokens.url}/token") as server:
        server.push("team/closed:1", titled(tiny_model), ARTIFACT_CONFIG)
        uri = f"oci://{server.host}/team/closed:1"
        start = f"model.uri: {uri}: {server.host} denies access"
        assert rejection(context, uri) == (
            "ModelForbidden",
            f"{start} without credentials, or the image does not exist (status 401); set model.pullSecretRef, or correct model.uri.",
        )
        monkeypatch.setenv("FINETUNE_PULL_SECRET", secret("quay.io", auth=basic("frodo:baggins")))
        assert rejection(context, uri) == (
            "ModelForbidden",
            f"{start} (status 401), and the pull secret has credentials for quay.io only; add them for {server.host}.",
        )
        monkeypatch.setenv("FINETUNE_PULL_SECRET", secret(server.host, auth=basic("frodo:sauron")))
        assert rejection(context, uri) == (
            "ModelForbidden",
            (
                f"{start} with the credentials of the pull secret (status 401); correct them in the Secret of model.pullSecretRef, or allow their"
                " owner to pull the image."
            ),
        )
        monkeypatch.setenv("FINETUNE_PULL_SECRET", secret(f"{server.host}/team", username="frodo", password="baggins"))
        assert same(obtain(context, uri), tiny_model)
        assert "scope=repository%3Ateam%2Fclosed%3Apull" in tokens.queries[-1]
        monkeypatch.setenv("FINETUNE_PULL_SECRET", secret(server.host, identitytoken="ring"))
        assert obtain(context, uri).reused


def test_a_refresh_token_follows_no_redirect(
    context: Context, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
) -> None:
    with (
        Tokens() as tokens, Tokens() as other,
        RegistryServer(tmp_path / "closed", tokens=f"{tokens.url}/token") as server,
    ):  # fmt: skip
        server.push("team/closed:1", titled(tiny_model), ARTIFACT_CONFIG)
        monkeypatch.setenv("FINETUNE_PULL_SECRET", secret(server.host, identitytoken="ring"))
        tokens.redirect = f"{other.url}/token"
        reason, message = rejection(context, f"oci://{server.host}/team/closed:1")
    assert other.queries == []
    assert (reason, "status 307" in message) == ("ModelNotFound", True)


def test_a_registry_with_passwords(context: Context, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path) -> None:
    with RegistryServer(tmp_path / "closed", password=True) as server:
        server.push("closed:1", titled(tiny_model), ARTIFACT_CONFIG)
        uri = f"oci://{server.host}/closed:1"
        assert rejection(context, uri)[0] == "ModelForbidden"
        content = secret(f"http://{server.host}/v2/", auth=basic("frodo:baggins"))
        monkeypatch.setenv("OCI_PULL_SECRET_MODEL_DOWNLOAD", content)  # as in the pipelines
        assert same(obtain(context, uri), tiny_model)


NOT_FOR_DOCKER = "create it with oc create secret docker-registry."
SECRETS = [
    ("frodo:baggins", "is not JSON"),
    ("{}", "has no auths"),
    ('{"auths": []}', "has no auths"),
    ('{"credsStore": "desktop"}', "refers to a credential helper, which a pod does not have"),
    (secret("{host}", auth="%%%"), "has an auth for {host} that is not Base64"),
    (secret("{host}", auth=basic("frodo")), "has an auth for {host} that is not <user>:<password> in Base64"),
    (secret("{host}", email="frodo@shire"), "has neither auth nor username and password for {host}"),
]


@pytest.mark.parametrize(("content", "words"), SECRETS)
def test_a_pull_secret_that_cannot_be_used(
    context: Context, monkeypatch: pytest.MonkeyPatch, registry: RegistryServer, content: str, words: str
) -> None:
    monkeypatch.setenv("FINETUNE_PULL_SECRET", content.replace("{host}", registry.host))
    found = rejection(context, f"oci://{registry.host}/x:1")
    expected = f"model.pullSecretRef: the content of the Secret {words.replace('{host}', registry.host)}; {NOT_FOR_DOCKER}"
    assert found == ("ModelForbidden", expected)


def test_credentials_are_not_sent_unencrypted(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    with Other() as server:
        server.status, server.challenge = 401, 'Bearer realm="http://tokens.example.com/x",service="s"'
        host = server.url.removeprefix("http://")
        monkeypatch.setenv("FINETUNE_PULL_SECRET", secret(host, auth=basic("frodo:baggins")))
        assert rejection(context, f"oci://{host}/x:1") == (
            "ModelForbidden",
            (
                f"model.uri: oci://{host}/x:1: the pull secret would be sent to tokens.example.com unencrypted; use a registry whose tokens come"
                " from https://."
            ),
        )


def test_a_certificate_is_trusted_through_the_bundle(
    context: Context, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    monkeypatch.setattr("finetune_stages.sources.registry.is_loopback", lambda _host: False)  # as a registry elsewhere
    with RegistryServer(tmp_path / "tls", certificate=certificate) as server:
        server.push("tiny:1", titled(tiny_model), ARTIFACT_CONFIG)
        uri = f"oci://{server.host}/tiny:1"
        problem = "is not trusted (self-signed certificate); set its CA in model.caRef."
        assert rejection(context, uri) == (
            "ModelUntrusted", f"model.uri: {uri}: the certificate of https://{server.host} {problem}",
        )  # fmt: skip
        monkeypatch.setenv("FINETUNE_SOURCE_CA", str(certificate))
        assert same(obtain(context, uri), tiny_model)


def test_a_tag_that_does_not_exist(context: Context, registry: RegistryServer, tiny_model: Path) -> None:
    registry.push("exists:1", titled(tiny_model), ARTIFACT_CONFIG)
    server = f"http://{registry.host}"
    assert rejection(context, f"oci://{registry.host}/exists:2") == (
        "ModelNotFound",
        f"model.uri: oci://{registry.host}/exists:2: {server} has no repository exists with the tag 2; correct model.uri.",
    )
    digest = f"sha256:{'0' * 64}"
    assert rejection(context, f"oci://{registry.host}/exists@{digest}") == (
        "ModelNotFound",
        f"model.uri: oci://{registry.host}/exists@{digest}: {server} has no such image in exists; correct the digest.",
    )


def test_a_registry_that_is_gone(context: Context) -> None:
    host = f"localhost:{unused_port()}"
    reason, message = rejection(context, f"oci://{host}/x:1")
    assert reason == "ModelUnreachable"
    assert message.startswith(f"model.uri: oci://{host}/x:1: http://{host} is unreachable or sent an invalid response (")
