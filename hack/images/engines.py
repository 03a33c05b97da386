"""Engines that build and run images: buildah, Docker or podman, the first one found. All build the same Containerfiles."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from build_error import CannotBuildError

from . import recipes, sandbox

_ENVIRONMENT = " AS environment\n"


@dataclass(frozen=True)
class Build:
    """One build: the arguments of ``docker build``.

    Attributes:
        epoch: time of all files and layers, in seconds; ``None`` for the present.
    """

    containerfile: Path
    context: Path
    tag: str
    arguments: Mapping[str, str]
    secrets: Mapping[str, Path]
    labels: Mapping[str, str]
    epoch: int | None = None

    def options(self) -> list[str]:
        """Return the options that all engines have."""
        words = ["--file", str(self.containerfile), "--tag", self.tag]
        for name, value in self.arguments.items():
            words += ["--build-arg", f"{name}={value}"]
        for name, path in self.secrets.items():
            words += ["--secret", f"id={name},src={path}"]
        for name, value in self.labels.items():
            words += ["--label", f"{name}={value}"]
        return words


@dataclass(frozen=True)
class Trial:
    """One run of an image under a cluster's restrictions: any user, group 0, a read-only root, no capabilities, no network."""

    command: Sequence[str]
    environment: Mapping[str, str]
    mounts: Mapping[Path, str]
    user: int = 1000660000
    seconds: float = 180


class Engine(ABC):
    """The interface of an engine."""

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def works(cls) -> bool:
        """Return whether it is installed and answers."""

    def reference(self, tag: str) -> str:
        """Return the name of a local image in a Containerfile."""
        return f"localhost/{tag}"

    @abstractmethod
    def build(self, build: Build) -> None:
        """Build an image."""

    @abstractmethod
    def save(self, tag: str, name: str, archive: Path) -> None:
        """Write an image into an archive for containerd, Docker and podman, with the name ``name``."""

    @abstractmethod
    def load(self, archive: Path, name: str, tag: str) -> None:
        """Load an image from an archive, unless the image ``tag`` exists."""

    @abstractmethod
    def forget(self, tag: str) -> None:
        """Remove an image if it exists."""

    @abstractmethod
    def run(self, tag: str, trial: Trial) -> subprocess.CompletedProcess[str]:
        """Run an image once."""

    @abstractmethod
    def read(self, tag: str, path: str) -> str:
        """Return the content of a text file in an image."""


class Buildah(Engine):
    """buildah: no daemon, separate storage below the cache, no change of the machine's network settings."""

    name = "buildah"

    @classmethod
    def works(cls) -> bool:  # noqa: D102
        return shutil.which("buildah") is not None

    def build(self, build: Build) -> None:  # noqa: D102
        # The chroot isolation needs neither cgroups nor network set-up; --force-rm: a failed build leaves no container behind.
        words = ["bud", "--quiet", "--layers", "--force-rm", "--isolation", "chroot", "--format", "oci"]
        if build.epoch is not None:
            words += ["--no-cache", *_timestamp(build)]  # a cached layer has the time of an earlier build
        elif _ENVIRONMENT in build.containerfile.read_text(encoding="utf-8"):
            # Only stages with a name are kept for the next build, and this one takes longest.
            environment = replace(build, tag=f"{build.tag.partition(':')[0]}-environment:latest", labels={})
            self._buildah(*words, "--target", "environment", *environment.options(), str(build.context))
        self._buildah(*words, *build.options(), str(build.context))
        self._buildah("rmi", "--prune")

    def save(self, tag: str, name: str, archive: Path) -> None:  # noqa: D102
        self._buildah("push", "--quiet", self.reference(tag), f"docker-archive:{archive}:docker.io/library/{name}")

    def load(self, archive: Path, name: str, tag: str) -> None:  # noqa: D102, ARG002 - one archive holds one image
        if not self._buildah("images", "--quiet", "--filter", f"reference={self.reference(tag)}").strip():
            found = self._buildah("pull", "--quiet", f"docker-archive:{archive}").strip()
            self._buildah("tag", found, self.reference(tag))

    def forget(self, tag: str) -> None:  # noqa: D102
        if self._buildah("images", "--quiet", "--filter", f"reference={self.reference(tag)}").strip():
            self._buildah("rmi", self.reference(tag))

    def run(self, tag: str, trial: Trial) -> subprocess.CompletedProcess[str]:  # noqa: D102
        with self.confined(tag, trial) as confined:
            return sandbox.run(confined, trial.seconds)

    def read(self, tag: str, path: str) -> str:  # noqa: D102
        with self._mounted(tag) as root:
            return root.joinpath(path.lstrip("/")).read_text(encoding="utf-8")

    @contextlib.contextmanager
    def confined(self, tag: str, trial: Trial) -> Iterator[sandbox.Confined]:
        """Mount the files of an image for one trial in this context."""
        described = json.loads(self._buildah("inspect", "--type", "image", self.reference(tag)))["OCIv1"]["config"]
        own = dict(entry.split("=", 1) for entry in described.get("Env") or ())
        with self._mounted(tag) as root:
            yield sandbox.Confined(root, trial.command, {**own, **trial.environment}, trial.mounts, trial.user)

    @contextlib.contextmanager
    def _mounted(self, tag: str) -> Iterator[Path]:
        container = self._buildah("from", "--quiet", "--pull-never", self.reference(tag)).strip()
        try:
            yield Path(self._buildah("mount", container).strip())
        finally:
            self._buildah("rm", container)

    def remove_everything(self) -> None:
        """Remove containers and images, and with them their mounts."""
        self._buildah("rm", "--all")
        self._buildah("rmi", "--all", "--force")

    def _buildah(self, *words: str) -> str:
        folder = recipes.cache() / "buildah"
        scratch = folder / "tmp"
        scratch.mkdir(parents=True, exist_ok=True)
        places = ["--root", str(folder / "graph"), "--runroot", str(folder / "run"), "--storage-driver", "overlay"]
        return _output(["buildah", *places, *words], {"TMPDIR": str(scratch)})


class _DockerLike(Engine):
    """The command line of Docker, which podman shares."""

    @classmethod
    def works(cls) -> bool:
        return shutil.which(cls.name) is not None and _succeeds([cls.name, "info"])

    def build(self, build: Build) -> None:
        words = [self.name, "build", "--quiet", *self._time(build), *build.options()]
        _output([*words, str(build.context)], {"DOCKER_BUILDKIT": "1"})

    def _time(self, build: Build) -> list[str]:
        return _timestamp(build)

    def save(self, tag: str, name: str, archive: Path) -> None:
        _output([self.name, "tag", tag, name])
        _output([self.name, "save", "--output", str(archive), name])

    def load(self, archive: Path, name: str, tag: str) -> None:
        if not _succeeds([self.name, "image", "inspect", tag]):
            _output([self.name, "load", "--input", str(archive)])
            _output([self.name, "tag", name, tag])

    def forget(self, tag: str) -> None:
        if _succeeds([self.name, "image", "inspect", tag]):
            _output([self.name, "rmi", tag])

    def run(self, tag: str, trial: Trial) -> subprocess.CompletedProcess[str]:
        words = [
            self.name, "run", "--rm", "--read-only", "--user", f"{trial.user}:0", "--cap-drop", "ALL", "--network", "none",
            "--security-opt", "no-new-privileges", "--tmpfs", "/tmp:mode=1777",
        ]  # fmt: skip
        for name, value in trial.environment.items():
            words += ["--env", f"{name}={value}"]
        for path, inside in trial.mounts.items():
            words += ["--volume", f"{path}:{inside}"]
        words += ["--entrypoint", trial.command[0], tag, *trial.command[1:]]
        return subprocess.run(words, capture_output=True, text=True, timeout=trial.seconds, check=False)

    def read(self, tag: str, path: str) -> str:
        return _output([self.name, "run", "--rm", "--entrypoint", "cat", tag, path])


class Docker(_DockerLike):
    """Docker, with BuildKit."""

    name = "docker"

    def reference(self, tag: str) -> str:  # noqa: D102
        return tag

    def _time(self, build: Build) -> list[str]:
        return [] if build.epoch is None else ["--build-arg", f"SOURCE_DATE_EPOCH={build.epoch}"]


class Podman(_DockerLike):
    """podman."""

    name = "podman"


ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (Buildah, Docker, Podman)}


def find(name: str = "auto") -> Engine:
    """Return the engine of a name, or the first one that works.

    Raises:
        CannotBuildError: there is none.
    """
    for engine in ENGINES.values():
        if name in ("auto", engine.name) and engine.works():
            return engine()
    tried = "buildah, Docker, podman: none works" if name == "auto" else f"{name}: not installed, or does not answer"
    raise CannotBuildError(f"{tried}; python hack/images packages installs buildah on Debian and Ubuntu")


def _timestamp(build: Build) -> list[str]:
    return [] if build.epoch is None else ["--timestamp", str(build.epoch)]


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0


def _output(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-3000:]
        raise CannotBuildError(f"{command[0]} failed: {said}")
    return done.stdout


def clean() -> None:
    """Remove buildah's storage of this project. The storage of Docker and podman is shared with others."""
    if Buildah.works():
        Buildah().remove_everything()
