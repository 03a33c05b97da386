"""A release of small files: what is in it, and that every way in which it can be wrong is found."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import yaml

from build_error import CannotBuildError
from images import builds, recipes
from oras.binary import ORAS
from registry_server import RegistryServer
from release import build, check, contents, manifests, notes, oci, provenance, sbom, tar
from release.build import Request
from release.command import main
from release.contents import Release, ReleasedImage
from release.system_packages import complete

VERSION, REVISION, EPOCH = recipes.version(), "a" * 40, 1_795_000_000
LOCK = """\
jinja2==3.1.6 \\
    --hash=sha256:aa
tomli==2.2.1 ; python_full_version < '3.12' \\
    --hash=sha256:bb
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:cc
nvidia-cublas==13.0 ; platform_machine == 'x86_64' \\
    --hash=sha256:dd
"""
OPERATOR = "finetune-operator"


SYSTEM = {
    "var/lib/dpkg/status": b"""Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc
Version: 2.36-9+deb12u10
Description: GNU C Library
 of the: project

Package: removed
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b7
""",
    "usr/lib/os-release": b'NAME="Debian GNU/Linux"\nID=debian\nVERSION_ID="12"\n',
}
"""Files of the base image."""
BASES = {
    "BASE_IMAGE": f"docker.io/library/python@sha256:{'e' * 64}",
    "BUILD_IMAGE": f"docker.io/library/python@sha256:{'f' * 64}",
}


def components(**versions: str) -> dict[str, Any]:
    return {"components": [{"name": name, "version": version} for name, version in versions.items()]}


def archive(path: Path, bill: bytes, labels: dict[str, str]) -> str:
    """Write an OCI archive with one layer that holds a bill of materials; the digest of its image."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        for name, content in {"opt/venv/share/sbom.cdx.json": bill, **SYSTEM}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            files.addfile(member, io.BytesIO(content))
    layout = path.with_suffix(".layout")
    (layout / "blobs/sha256").mkdir(parents=True)

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (layout / "blobs/sha256" / digest).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}

    layers = [gzip.compress(content, mtime=0) for content in (b"\0" * 10240, layer.getvalue())]
    configuration = {"architecture": "amd64", "os": "linux", "config": {"Labels": labels}}
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(configuration).encode(), "config.v1+json"),
        "layers": [blob(content, "layer.v1.tar+gzip") for content in layers],
    }  # fmt: skip
    described = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    tar.write(layout, path, EPOCH)
    return str(described["digest"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout with few manifests."""
    root = tmp_path / "root"
    for name, text in {
        "crds/finetuneruns.finetunerun.io.yaml": yaml.safe_dump(
            {"metadata": {"annotations": {check.VERSION_ANNOTATION: VERSION}}}
        ),
        "manifests/base/deployment.yaml": f"image: finetune-operator:{VERSION}\n",
        "manifests/base/configuration.yaml": "# nothing\n",
        "manifests/overlays/namespaced/configuration.yaml": "namespaces: [a]\n",
        "manifests/overlays/selected/configuration.yaml": "namespaces: [a, b]\n",
        "manifests/overlays/kind/kustomization.yaml": "newTag: test\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def folder(tmp_path: Path, root: Path) -> Path:
    """A release with one image, in which everything is right."""
    folder = tmp_path / "release"
    for name in ("images", "locks"):
        (folder / name).mkdir(parents=True)
    (folder / "locks/operator.lock").write_text(LOCK)
    bill = json.dumps(components(Jinja2="3.1.6")).encode()
    (folder / "images/operator.cdx.json").write_bytes(complete(bill, *SYSTEM.values()))
    labels = {"org.opencontainers.image.version": VERSION, "org.opencontainers.image.revision": REVISION}
    digest = archive(folder / "images/operator.oci.tar", bill, labels)
    for path in sorted((folder / "images/operator.oci.layout").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (folder / "images/operator.oci.layout").rmdir()
    image = ReleasedImage(
        "images/operator.oci.tar", digest, "images/operator.cdx.json", "images/operator.provenance.json", "locks/operator.lock", "cpu",
    )  # fmt: skip
    release = Release(VERSION, REVISION, EPOCH, "registry", BASES, draft=False, images={OPERATOR: image})
    (folder / image.provenance).write_text(provenance.statement(folder, release, OPERATOR))
    with ZipFile(folder / release.wheel, "w") as wheel:
        wheel.writestr(f"finetune_operator-{VERSION}.dist-info/METADATA", f"Name: a\nVersion: {VERSION}\n")
    (tmp_path / "sdist").mkdir()
    (tmp_path / "sdist/PKG-INFO").write_text(f"Name: a\nVersion: {VERSION}\n")
    tar.write(tmp_path / "sdist", folder / release.sdist, EPOCH, f"finetune_operator-{VERSION}")
    manifests.write(root, tmp_path / "manifests", {OPERATOR: digest})
    tar.write(tmp_path / "manifests", folder / release.manifests, EPOCH, f"finetune-manifests-{VERSION}")
    (folder / contents.NOTES).write_text(notes.page(release, "- A change."))
    contents.write(folder, release)
    return folder


def test_a_release_in_which_everything_is_right(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", VERSION, "--folder", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: digests, bills of materials and manifests are those of the release\n"


def again(folder: Path, **changes: Any) -> None:
    """Write index and sums as if the release had been built so."""
    contents.write(folder, replace(contents.read(folder), **changes))


def image(folder: Path, **changes: str) -> None:
    again(folder, images={OPERATOR: replace(contents.read(folder).images[OPERATOR], **changes)})


def damaged(folder: Path) -> None:
    path = folder / "images/operator.oci.tar"
    data = bytearray(path.read_bytes())
    at = data.index(b"\x1f\x8b") + 12  # in the first compressed layer
    data[at] ^= 1
    path.write_bytes(bytes(data))
    again(folder)


def tagged(folder: Path, root: Path, **digests: str) -> None:
    target = folder.parent / "again"
    manifests.write(root, target, digests)
    tar.write(target, folder / contents.read(folder).manifests, EPOCH, f"finetune-manifests-{VERSION}")
    again(folder)


def relabeled(folder: Path) -> None:
    bill = json.dumps(components(Jinja2="3.1.6")).encode()
    digest = archive(folder.parent / "other.oci.tar", bill, {"org.opencontainers.image.version": VERSION})
    (folder.parent / "other.oci.tar").rename(folder / "images/operator.oci.tar")
    image(folder, digest=digest)


def without_system_package(folder: Path) -> None:
    path = folder / "images/operator.cdx.json"
    document = json.loads(path.read_bytes())
    document["components"].pop()
    write(path, json.dumps(document, indent=2) + "\n")


def write(path: Path, text: str) -> None:
    path.write_text(text)
    again(path.parents[1] if path.parent.name in ("locks", "images") else path.parent)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "more").write_text(""), "more: not in SHA256SUMS"),
        (lambda f: (f / "locks/operator.lock").unlink() or (f / "locks/operator.lock").touch(), "locks/operator.lock: not the digest of SHA256SUMS"),
        (damaged, "finetune-operator: the archive is damaged: sha256:"),
        (lambda f: image(f, digest=f"sha256:{'b' * 64}"), "finetune-operator: the archive has the digest sha256:"),
        (relabeled, "finetune-operator: label org.opencontainers.image.revision is None"),
        (lambda f: again(f, revision="c" * 40), f"label org.opencontainers.image.revision is {REVISION}, not cccc"),
        (lambda f: write(f / "images/operator.cdx.json", '{"components": []}'), "jinja2 is in the lock, and not listed"),
        (lambda f: write(f / "images/operator.cdx.json", '{"components": []}'), "the packages of the image are not those of images/operator.cdx.json"),
        (without_system_package, "the packages of the image are not those of images/operator.cdx.json"),
        (lambda f: write(f / "images/operator.provenance.json", "{}"), "operator.provenance.json: not the statement about finetune-operator"),
        (lambda f: again(f, bases={**BASES, "BASE_IMAGE": "docker.io/library/python:3.12"}), "release.json: BASE_IMAGE is docker.io/library/python:3.12, which has no digest"),
        (lambda f: write(f / "locks/operator.lock", LOCK.replace("3.1.6", "3.1.7")), "jinja2 3.1.6 is listed, and the lock has 3.1.7"),
        (lambda f: write(f / contents.NOTES, VERSION), f"{contents.NOTES}: does not name {REVISION}"),
        (lambda f: again(f, images={}), "finetune-operator@sha256:"),
    ],
    ids=[
        "additional file", "changed file", "damaged archive", "other digest", "no label", "other revision", "package missing in the bill",
        "other bill in the image", "package of the base missing in the bill", "other provenance", "base without a digest", "other lock", "notes of another release", "image missing in the index",
    ],
)  # fmt: skip
def test_every_fault_is_found(change: Callable[[Path], object], words: str, folder: Path) -> None:
    change(folder)
    assert any(words in fault for fault in check.faults(folder)), check.faults(folder)


def test_manifests_of_another_image_or_with_a_tag_are_found(folder: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tagged(folder, root)
    assert main(["check", VERSION, "--folder", str(folder)]) == 1
    found = capsys.readouterr().err
    assert f"manifests/base/deployment.yaml: finetune-operator:{VERSION} has a tag; build the release again\n" in found
    assert "release: manifests: none names finetune-operator by digest" in found


def test_the_manifests_of_another_digest_are_found(folder: Path, root: Path) -> None:
    tagged(folder, root, **{OPERATOR: f"sha256:{'d' * 64}"})
    assert any("is not the digest of the release, sha256:" in fault for fault in check.faults(folder))


def test_another_version_is_found_in_wheel_sdist_and_definition(folder: Path) -> None:
    release = contents.read(folder)
    other = replace(release, version="9.9.9")
    for name, moved in ((release.wheel, other.wheel), (release.sdist, other.sdist), (release.manifests, other.manifests)):
        (folder / name).rename(folder / moved)
    contents.write(folder, other)
    found = check.faults(folder)
    for name in (other.wheel, other.sdist):
        assert f"{name}: the version in its metadata is not 9.9.9" in found
    assert f"{check.DEFINITION}: annotation {check.VERSION_ANNOTATION} is None, not 9.9.9" in found


@pytest.mark.parametrize(
    ("listed", "accelerator", "expected"),
    [
        ({"Jinja2": "3.1.6"}, "cpu", []),
        ({"jinja2": "3.1.6", "tomli": "2.2.1"}, "cpu", []),
        ({"jinja2": "3.1.6", "nvidia-cublas": "13.0"}, "cuda", []),
        ({"jinja2": "3.1.6"}, "cuda", ["nvidia-cublas is in the lock, and not listed"]),
        ({"jinja2": "3.1.6", "nvidia-cublas": "13.0"}, "cpu", ["nvidia-cublas 13.0 is listed, and the lock has no such package"]),
        ({"jinja2": "3.1.6", "colorama": "0.4.6"}, "cpu", ["colorama 0.4.6 is listed, and the lock has no such package"]),
        ({"jinja2": "3.1.5"}, "cpu", ["jinja2 3.1.5 is listed, and the lock has 3.1.6"]),
        ({}, "cpu", ["jinja2 is in the lock, and not listed"]),
    ],
)
def test_a_bill_of_materials_is_compared_with_the_lock(listed: dict[str, str], accelerator: str, expected: list[str]) -> None:
    document = {"components": [{"name": name, "version": version} for name, version in listed.items()]}
    assert sbom.faults(document, LOCK, accelerator, "amd64") == expected


DIGESTS = {"finetune-operator": f"sha256:{'1' * 64}", "finetune-dataset": f"sha256:{'2' * 64}"}


@pytest.mark.parametrize(
    ("text", "registry", "expected"),
    [
        (f"finetune-operator:{VERSION}", "", f"finetune-operator@sha256:{'1' * 64}"),
        (f"finetune-operator:{VERSION}", "r.example.com/a", f"r.example.com/a/finetune-operator@sha256:{'1' * 64}"),
        (f"x.example.com/finetune/dataset:{VERSION}", "r.example.com/a", f"x.example.com/finetune/dataset@sha256:{'2' * 64}"),
        (f"finetune-model:{VERSION}", "r.example.com/a", f"finetune-model:{VERSION}"),
        ("finetune-operator:test", "", "finetune-operator:test"),
    ],
)
def test_images_are_named_by_digest(text: str, registry: str, expected: str) -> None:
    assert manifests.pin(text, DIGESTS, registry) == expected


def test_the_operator_is_configured_with_the_images_of_the_release(root: Path, tmp_path: Path) -> None:
    manifests.write(root, tmp_path / "out", DIGESTS, "r.example.com/a")
    for name in manifests.CONFIGURATIONS:
        found = yaml.safe_load((tmp_path / "out" / name).read_text())
        assert found["images"] == {"dataset": f"r.example.com/a/finetune-dataset@sha256:{'2' * 64}"}
    assert not (tmp_path / "out/manifests/overlays/kind").exists()
    assert (root / "manifests/overlays/kind").exists()


def test_every_configuration_of_an_overlay_is_covered() -> None:
    real = Path(recipes.ROOT, "manifests")
    found = {path.relative_to(recipes.ROOT).as_posix() for path in real.rglob("configuration.yaml")}
    assert found - {f"manifests/overlays/{name}/configuration.yaml" for name in manifests.LEFT_OUT} == set(
        manifests.CONFIGURATIONS
    )
    for name in manifests.CONFIGURATIONS:
        assert "images" not in (yaml.safe_load(Path(recipes.ROOT, name).read_text()) or {})


def test_the_manifests_of_this_tree_have_no_image_without_a_digest(tmp_path: Path) -> None:
    digests = {recipe.title: f"sha256:{number:064x}" for number, recipe in enumerate(recipes.RECIPES.values())}
    manifests.write(recipes.ROOT, tmp_path, digests)
    texts = [(str(path), path.read_text()) for path in tmp_path.rglob("*.yaml")]
    assert manifests.faults(texts, digests, draft=False) == []


CHANGES = "# Changelog\n\n## Unreleased\n\n- new\n\n## 0.2.0 - 2026-11-29\n\n- second\n\n### Fixed\n\n- more\n\n## [0.1.0]\n\n- first\n\n## 0.0.9\n"


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0.2.0", "- second\n\n### Fixed\n\n- more"), ("0.1.0", "- first"), ("Unreleased", "- new")],
)
def test_release_notes_are_a_section_of_the_change_log(version: str, expected: str) -> None:
    assert notes.section(CHANGES, version) == expected


@pytest.mark.parametrize(("version", "words"), [("0.2", "there is no section 0.2;"), ("0.0.9", "section 0.0.9 is empty")])
def test_a_section_that_is_missing_or_empty_is_rejected(version: str, words: str) -> None:
    with pytest.raises(CannotBuildError, match=words):
        notes.section(CHANGES, version)


def test_the_same_files_make_the_same_archive(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "below").mkdir(parents=True)
        for file in ("below/2", "1") if name == "a" else ("1", "below/2"):
            (tmp_path / name / file).write_text(file)
        (tmp_path / name / "1").chmod(0o755 if name == "a" else 0o600)
        tar.write(tmp_path / name, tmp_path / f"{name}.tar.gz", EPOCH)
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "release: VERSION: not set; state it as VERSION=1.2.3\n"),
        (["1.0"], "release: VERSION: 1.0; state it as VERSION=1.2.3\n"),
        (["9.9.9"], f"release: VERSION: 9.9.9 is not the version of this tree, {VERSION}; set __version__ in"),
    ],
)
def test_a_wrong_version_is_rejected(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", *arguments]) == 1
    assert capsys.readouterr().err.startswith(words)


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        (
            Request(VERSION, list(recipes.RECIPES)),
            " M Makefile",
            "Makefile: changed and not committed; commit it, or set DRAFT=1",
        ),
        (Request(VERSION, ["operator"]), "", "IMAGES: a release has all images"),
        (Request(VERSION, list(recipes.RECIPES), "debian"), "", "BASE: images of a release are not built on debian"),
    ],
)
def test_only_a_draft_is_built_from_another_tree(
    request_: Request, status: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(build, "_git", lambda *_: status)
    with pytest.raises(CannotBuildError, match=words):
        build.build(request_, tmp_path / "release")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_an_archive_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    tar.write(tmp_path / "a", tmp_path / "a.tar", EPOCH)
    with pytest.raises(ValueError, match="not an OCI archive with one image"):
        oci.Archive(tmp_path / "a.tar")


def test_a_folder_that_is_no_release_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CannotBuildError, match="is not the folder of a release"):
        build.build(Request(VERSION, ["operator"], draft=True), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_bill_of_materials_has_the_packages_of_the_base(folder: Path) -> None:
    listed = json.loads((folder / "images/operator.cdx.json").read_bytes())["components"]
    assert [(one["name"], one["version"], one.get("purl")) for one in listed] == [
        ("Jinja2", "3.1.6", None),
        ("bash", "5.2.15-2+b7", "pkg:deb/debian/bash@5.2.15-2%2Bb7?arch=amd64&distro=debian-12"),
        ("libc6", "2.36-9+deb12u10", "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64&distro=debian-12"),
    ]


def test_provenance_names_image_commit_lock_and_bases(folder: Path) -> None:
    found = json.loads((folder / "images/operator.provenance.json").read_bytes())
    (subject,) = found["subject"]
    assert f"sha256:{subject['digest']['sha256']}" == contents.read(folder).images[OPERATOR].digest
    used = {one["name"]: one["digest"] for one in found["predicate"]["buildDefinition"]["resolvedDependencies"]}
    lock = hashlib.sha256(LOCK.encode()).hexdigest()
    assert used == {
        "source": {"gitCommit": REVISION}, "locks/operator.lock": {"sha256": lock}, "BASE_IMAGE": {"sha256": "e" * 64}, "BUILD_IMAGE": {"sha256": "f" * 64},
    }  # fmt: skip


def test_a_base_of_debian_packages_is_described() -> None:
    assert builds.bases_of("debian")["BUILD_IMAGE"] == (
        "Debian bookworm with python3, python3-venv, python3-dev, gcc, libc6-dev, in the versions of the mirror"
    )


@pytest.mark.go
def test_the_commands_of_the_notes_attach_bill_and_provenance_to_the_image(folder: Path, tmp_path: Path) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed: python hack/images packages")
    released = contents.read(folder).images[OPERATOR]
    page = (folder / contents.NOTES).read_text()
    push = re.search(r"`(skopeo copy .*)`", page)
    assert push
    commands = [push[1].replace("<archive>", released.archive), *re.findall(r"^oras .*$", page, re.MULTILINE)]
    assert len(commands) == 3
    with RegistryServer(tmp_path / "registry") as registry:

        def run(command: str, cwd: Path) -> str:
            words = command.replace("<registry>", f"{registry.host}/team").replace("<image>", OPERATOR).split()
            insecure = {"skopeo": ["--dest-tls-verify=false"], "oras": ["--plain-http"]}[words[0]]
            program = str(ORAS.find()) if words[0] == "oras" else words[0]
            return subprocess.run([program, *words[1:], *insecure], cwd=cwd, check=True, capture_output=True, text=True).stdout

        run(commands[0], folder)
        for command in commands[1:]:
            run(command, folder / "images")
        discovered = json.loads(run(f"oras discover --format json <registry>/<image>:{VERSION}", tmp_path))
        assert discovered["digest"] == released.digest
        attached = {one["artifactType"]: one["digest"] for one in discovered["referrers"]}
        assert len(attached) == 2
        for kind, path in (("cyclonedx", released.sbom), ("in-toto", released.provenance)):
            run(f"oras pull -o {kind} <registry>/<image>@{attached[f'application/vnd.{kind}+json']}", tmp_path)
            assert (tmp_path / kind / Path(path).name).read_bytes() == (folder / path).read_bytes()
