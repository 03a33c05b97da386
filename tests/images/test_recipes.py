"""The Containerfiles, and what hack/images makes of them before an engine is started."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from build_error import CannotBuildError
from certificates import self_signed
from finetune_operator.core.images import CONFIGURABLE
from finetune_operator.kube.configuration import Configuration
from images import bases, builds, package_index, packages
from images.command import main
from images.engines import Build
from images.recipes import OPERATOR, PROGRAMS, RECIPES, ROOT, STAGES, Recipe, programs_in
from registry_server import RegistryServer, layer

ALL = list(RECIPES.values())


def text(recipe: Recipe) -> str:
    return (ROOT / recipe.containerfile).read_text(encoding="utf-8")


def test_the_stages_containerfiles_are_one_file_but_for_the_program() -> None:
    of = {program: text(RECIPES[program]) for program in PROGRAMS}
    assert {program: re.findall(r"^ARG PROGRAM=(.+)$", file, flags=re.MULTILINE) for program, file in of.items()} == {
        program: [program] for program in PROGRAMS
    }
    arguments = {program: f'ARG PROGRAM={program}\nARG PROGRAMS="{" ".join(programs_in(program))}"\n' for program in PROGRAMS}
    assert all(arguments[program] in file for program, file in of.items())
    assert len({file.replace(arguments[program], "") for program, file in of.items()}) == 1


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.name)
def test_a_key_covers_everything_that_is_copied(recipe: Recipe) -> None:
    """What is copied but not in the key would be an image that is out of date and not built again."""
    program = recipe.name.removesuffix("-cuda")
    copied = re.findall(r"^COPY (?!--from)(\S+)", text(recipe), flags=re.MULTILINE)
    names = {name.replace("${PROGRAM}", program) for name in copied}
    chosen = re.search(r"cp -Rp (.+) /app/finetune_stages/", text(recipe))
    if chosen:  # of the stages' sources only these reach the image
        parts = chosen[1].replace("${PROGRAMS}", " ".join(programs_in(program))).split()
        names = names - {"images/finetune_stages"} | {f"images/finetune_stages/{part}" for part in parts}
    assert names == {"images/build", recipe.lock, *recipe.sources}
    assert len(list(recipe.files())) > 10
    assert all("__pycache__" not in path.parts for path in recipe.files())


@pytest.mark.parametrize("recipe", ALL, ids=lambda recipe: recipe.name)
def test_an_image_belongs_to_nobody(recipe: Recipe) -> None:
    file = text(recipe)
    assert re.search(r"^USER 1001:0$", file, flags=re.MULTILINE), "a number, which runAsNonRoot can check"
    for base in ("BUILD_IMAGE", "BASE_IMAGE"):
        assert f"ARG {base}={bases.BASES[base]}\n" in file
    for label in ("title", "description", "licenses"):
        assert f"org.opencontainers.image.{label}=" in file
    final = file[file.rindex("FROM ") :]
    assert "RUN" not in final, "nothing is installed where it runs"


def test_the_operator_looks_for_images_of_these_names() -> None:
    expected = Configuration().settings(None, {}).images
    assert {image.partition(":")[0] for image in expected.values()} == {f"finetune-{name}" for name in expected}
    assert {f"finetune-{name}" for name in CONFIGURABLE} == {recipe.title for recipe in ALL} - {OPERATOR.title, STAGES.title}


def test_a_key_changes_with_a_source_a_base_and_a_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.recipes.ROOT", tmp_path)
    (tmp_path / "a").mkdir()
    recipe = Recipe("a", "finetune-a", "a/Containerfile", "lock", ("a",))
    (tmp_path / "a/source.py").write_text("1")
    keys = [recipe.key("base", "test")]
    keys += [
        recipe.key("base 2", "test"),
        recipe.key("base", "0.1"),
        replace(recipe, arguments=(("A", "b"),)).key("base", "test"),
    ]
    (tmp_path / "a/source.py").write_text("2")
    keys.append(recipe.key("base", "test"))
    (tmp_path / "a/other.py").write_text("")
    keys.append(recipe.key("base", "test"))
    assert len(set(keys)) == len(keys)
    (tmp_path / "a/__pycache__").mkdir()
    (tmp_path / "a/__pycache__/other.pyc").write_bytes(b"x")
    assert recipe.key("base", "test") == keys[-1]


def test_a_second_build_is_no_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    archives = [builds.locate(recipe, "debian", "test").archive for recipe in (OPERATOR, STAGES)]
    for archive in archives:
        archive.parent.mkdir(parents=True)
        archive.touch()
    monkeypatch.setenv("PATH", "")  # no engine would be found
    assert main(["build", "--base", "debian"]) == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [str(archive) for archive in archives]
    assert output.err.splitlines()[1] == "images: BASE_IMAGE: Debian bookworm with python3, in the versions of the mirror"


def test_a_digest_is_never_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lock, digest = tmp_path / "bases.lock", f"sha256:{'a' * 64}"
    lock.write_text("# nothing yet\n")
    with pytest.raises(
        CannotBuildError, match=r"^bases.lock: no digest of docker.io/library/python:3.12; run python hack/images pin"
    ):
        bases.pinned(lock)
    lock.write_text("".join(f"{image} {digest}\n" for image in bases.BASES.values()))
    assert bases.pinned(lock)["BASE_IMAGE"] == f"docker.io/library/python@{digest}"
    monkeypatch.setattr(bases, "BASES", {"BASE_IMAGE": "127.0.0.1:9/library/python:3.12"})
    before = lock.read_text()
    with pytest.raises(CannotBuildError, match=r"the registry returned no digest|install one to get digests"):
        bases.pin(lock)
    assert lock.read_text() == before


@pytest.mark.go
def test_the_digests_of_the_bases_come_from_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed: python hack/images packages")
    certificate, lock = self_signed(tmp_path), tmp_path / "bases.lock"
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with RegistryServer(tmp_path / "registry", certificate=certificate) as registry:
        pushed = {tag: registry.push(f"library/python:{tag}", [layer({tag: b""})]) for tag in ("3.12", "3.12-slim")}
        names = {"BUILD_IMAGE": f"{registry.host}/library/python:3.12", "BASE_IMAGE": f"{registry.host}/library/python:3.12-slim"}
        monkeypatch.setattr(bases, "BASES", names)
        bases.pin(lock)
    assert bases.pinned(lock) == {
        "BUILD_IMAGE": f"{registry.host}/library/python@{pushed['3.12']}", "BASE_IMAGE": f"{registry.host}/library/python@{pushed['3.12-slim']}",
    }  # fmt: skip


def test_the_package_index_is_passed_as_secrets_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "authorities.pem"
    bundle.write_text("certificates")
    settings = tmp_path / "pip.conf"
    settings.write_text(
        f"[global]\nindex-url = https://mary:sesame@mirror.example.com/simple\ncert = {bundle}\nno-color = true\ntimeout = 5\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    for name in [name for name in os.environ if name.startswith("PIP_") and name != "PIP_CONFIG_FILE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_TIMEOUT", "7")
    found = package_index.secrets(tmp_path / "..")
    try:
        written = found["pip.conf"].read_text()
        assert "index-url = https://mary:sesame@mirror.example.com/simple" in written
        assert "timeout = 7" in written
        assert "cert = /etc/finetune-ca.pem" in written
        assert "no-color" not in written
        assert found["pip.conf"].stat().st_mode & 0o077 == 0
        assert found["ca.pem"] == bundle
        options = Build(Path("Containerfile"), Path(), "a:1", {"PROGRAM": "model"}, found, {}).options()
        assert [word for word in options if "sesame" in word] == []
        assert options.count("--secret") == 2
    finally:
        found["pip.conf"].unlink()


def test_packages_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if not shutil.which("dpkg-query"):
        pytest.skip("this is no Debian: there is no dpkg-query")
    monkeypatch.setattr(packages, "wanted", lambda: ["bash", "finetune-no-such-package"])
    assert packages.missing() == ["finetune-no-such-package"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["packages"]) == 1
    assert capsys.readouterr().err == (
        "images: packages: only root may install them; run sudo apt-get install --no-install-recommends finetune-no-such-package\n"
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["build", "train"], "images: train: not an image; choose from operator, stages, dataset"),
        (
            ["load", "operator", "--base", "debian"],
            "images: finetune-operator:test: not built from the present sources; run python",
        ),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert main(words) == 1
    assert capsys.readouterr().err.startswith(sentence)
