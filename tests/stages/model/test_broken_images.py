"""Images that have no model, broken ones, and what registries answer: each with a reason and one sentence."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune_stages.sdk import Context
from finetune_stages.sources import layers
from registry_server import (
    INDEX,
    TAR,
    TITLE,
    Blob,
    RegistryServer,
    archive,
    layer,
    link,
    model_files,
)
from stages.model.images import OneAnswer, rejection

pytestmark = pytest.mark.go


Made = Callable[[Path], list[Blob]]
NO_PLATFORM = "push an image for linux/amd64, or set another image."
NO_MODEL = "set an image with a model below /models."
ASK = "ask the administrator of the registry to correct its configuration, or use another registry."
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
    "nothing removed": (_with(**{"models/.wh.": b""}), "ModelCorrupt", f"{{layer}} has models/.wh., which names no file to remove; {AGAIN}"),
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


def test_the_number_of_files_and_of_removed_ones_is_that_of_all_layers(
    context: Context, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_MOST_ENTRIES", 5)
    first, second = (layer({f"models/{name}{number}": b"" for number in range(4)}) for name in "ab")
    registry.push("crowds:1", [first, second])
    words = f"and the layers before it have more than 5 files; {AGAIN}"
    assert rejection(context, f"oci://{registry.host}/crowds:1") == (
        "ModelCorrupt", f"oci://{registry.host}/crowds:1: layer {second.digest} {words}",
    )  # fmt: skip
    first, second = (layer({f"models/.wh.{name}{number}": b"" for number in range(4)}) for name in "ab")
    registry.push("removed:1", [layer({f"etc/.wh.{number}": b"" for number in range(9)}), first, second])
    words = f"and the layers before it remove more than 5 files; {AGAIN}"
    assert rejection(context, f"oci://{registry.host}/removed:1") == (
        "ModelCorrupt", f"oci://{registry.host}/removed:1: layer {second.digest} {words}",
    )  # fmt: skip


def test_files_that_replace_directories_are_counted_as_removals(
    context: Context, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_MOST_ENTRIES", 5)
    pair = [layer({f"models/{number}/x": b"" for number in range(2)}), layer({f"models/{number}": b"" for number in range(2)})]
    registry.push("replaced:1", pair * 3)
    assert rejection(context, f"oci://{registry.host}/replaced:1") == (
        "ModelCorrupt",
        f"oci://{registry.host}/replaced:1: layer {pair[1].digest} and the layers before it remove more than 5 files; {AGAIN}",
    )


MANIFESTS: list[tuple[dict[str, Any], str]] = [
    ({"mediaType": INDEX, "manifests": []}, f"its index has no images; {NO_PLATFORM}"),
    (
        {"mediaType": INDEX, "manifests": [{"digest": "sha256:" + "0" * 64, "platform": {"os": "linux", "architecture": one}} for one in ("arm64", "s390x")]},
        f"its index has images for linux/arm64, linux/s390x, and none for linux/amd64; {NO_PLATFORM}",
    ),
]  # fmt: skip


LAYER = {"mediaType": TAR, "digest": "sha256:" + "0" * 64, "size": 3}
CONTENTS: list[tuple[bytes, int, str, str, str]] = [
    (b"<html>", 200, "", "ModelNotFound", "its manifest is not JSON; push the image again, or use another registry."),
    (b"[]", 200, "", "ModelNotFound", "its manifest is not a JSON object; push the image again, or use another registry."),
    (b" " * (5 << 20), 200, "", "ModelNotFound", "its manifest is larger than 4 MiB; push the image again, or use another registry."),
    (b'{"schemaVersion": 1}', 200, "", "ModelNotFound", f"its manifest is neither of the OCI image specification nor of Docker, version 2; {AGAIN}"),
    (b'{"schemaVersion": 2, "layers": []}', 200, "", "ModelNotFound", f"its manifest has no layers, or more than 10,000; {AGAIN}"),
    (json.dumps({"schemaVersion": 2, "layers": [{**LAYER, "size": "3"}]}).encode(), 200, "", "ModelNotFound", f"its manifest has a layer without a SHA-256 digest or without a size; {AGAIN}"),
    (json.dumps({"schemaVersion": 2, "layers": [{**LAYER, "digest": "sha256:../../x"}]}).encode(), 200, "", "ModelNotFound", f"its manifest has a layer without a SHA-256 digest or without a size; {AGAIN}"),
    (json.dumps({"schemaVersion": 2, "layers": [{**LAYER, "annotations": {TITLE: "../config.json"}}]}).encode(), 200, "", "ModelNotFound", f"its manifest has a layer with the name '../config.json', which is not a path below a directory; {AGAIN}"),
    (json.dumps({"schemaVersion": 2, "layers": [{**LAYER, "annotations": {TITLE: "config.json"}}, {**LAYER, "digest": "sha256:" + "1" * 64, "annotations": {TITLE: "./config.json"}}]}).encode(), 200, "", "ModelNotFound", f"its manifest has two layers with the name './config.json' and different contents; {AGAIN}"),
    *[(json.dumps({"schemaVersion": 2, **index}).encode(), 200, "", "ModelNotFound", words) for index, words in MANIFESTS],
    (b"", 404, "", "ModelNotFound", "{server} has no repository x with the tag 1; correct model.uri."),
    (b"", 418, "", "ModelNotFound", "{server} rejected the request with status 418; correct model.uri."),
    (b"", 503, "", "ModelUnreachable", "{server} responded with status 503."),
    (b"", 429, "", "ModelUnreachable", "{server} responded with status 429."),
    (b"", 401, "", "ModelForbidden", "{host} denies access without credentials, or the image does not exist (status 401); set model.pullSecretRef, or correct model.uri."),
    (b"", 401, 'Bearer realm="ftp://x"', "ModelNotFound", f"the registry names 'ftp://x' as the address for tokens; {ASK}"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "status", "challenge", "reason", "sentence"), CONTENTS)
def test_what_registries_answer(
    context: Context, content: bytes, status: int, challenge: str, reason: str, sentence: str
) -> None:
    with OneAnswer() as server:
        server.content, server.status, server.challenge = content, status, challenge
        host = server.url.removeprefix("http://")
        expected = f"model.uri: oci://{host}/x:1: {sentence.replace('{server}', server.url).replace('{host}', host)}"
        assert rejection(context, f"oci://{host}/x:1") == (reason, expected)
