"""Make ``.venv``: uv, the packages of the lock, placeholders for NVIDIA's libraries, and this project."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cuda_placeholders
import progress
from environment import requirements

from .accelerator import Accelerator

_DOWNLOADS = {"cpu": "0.9 GB to download, 2.6 GB on disk", "cuda": "3.4 GB to download, 6.8 GB on disk"}
"""Sizes with empty caches, measured on x86_64."""
_CALLED = "this environment has no GPU libraries: make setup ACCELERATOR=cuda installs them"
_NOISE = (" + ", " - ", " ~ ")
"""Prefixes of uv's lines for single packages."""


class InstallError(RuntimeError):
    """A step failed. The message names it."""


def install(root: Path, folder: Path, accelerator: Accelerator) -> None:
    """Make the environment ``folder`` for the checkout ``root``, or bring it up to date.

    Raises:
        InstallError: a step failed; the output of its program is on the screen.
    """
    placeholders = accelerator == "cpu" and sys.platform == "linux"
    python, uv = folder / "bin" / "python", folder / "bin" / "uv"
    wanted = requirements((root / "requirements/all.lock").read_text(encoding="utf-8"))
    if placeholders:
        wanted = {name: text for name, text in wanted.items() if not is_replaced(name)}
    size = f"; {_DOWNLOADS[accelerator]}" if sys.platform == "linux" and not _site(folder, "torch").exists() else ""
    with progress.counted(5 if placeholders else 4):
        with progress.step("setup: a virtual environment with uv", "setup-uv"):
            _make(root, folder)
        with progress.step(f"setup: {len(wanted)} packages of requirements/all.lock{size}", f"setup-packages-{accelerator}"):
            cuda_placeholders.remove(_site(folder))
            lock = folder / "requirements.lock"
            lock.write_text("".join(wanted.values()), encoding="utf-8")
            _uv(uv, "sync", "--python", python, "--require-hashes", lock)
        if placeholders:
            with progress.step("setup: placeholders for NVIDIA's libraries", "setup-placeholders"):
                cuda_placeholders.write(_site(folder), _CALLED)
        with progress.step("setup: this project", "setup-project"):
            _uv(uv, "install", "--python", python, "--no-deps", "--no-build-isolation", "--editable", root)
        with progress.step("setup: the first import of torch", "setup-import"):
            _import(python)


def _import(python: Path) -> None:
    """Import torch, which shows that its libraries load. Its byte code is kept, whatever the environment sets."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [str(python), "-c", "import torch"]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
    _check(done.returncode, command)


def is_replaced(package: str) -> bool:
    """Return whether placeholders replace a package. bitsandbytes stays: it has a library for CPUs that tests load."""
    return cuda_placeholders.is_only_for_gpus(package) and package != "bitsandbytes"


def _make(root: Path, folder: Path) -> None:
    """Make the environment with uv in it, unless it exists for this Python."""
    pip, uv = folder / "bin" / "pip", folder / "bin" / "uv"
    if not (pip.exists() and (folder / "bin" / "python").exists() and _site(folder).exists()):
        _run(sys.executable, "-m", "venv", "--clear", folder)
    if not uv.exists():
        _run(pip, "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r", root / "requirements/bootstrap.lock")


def _site(folder: Path, *names: str) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return folder.joinpath("lib", version, "site-packages", *names)


def _uv(uv: Path, *words: str | Path) -> None:
    """Run ``uv pip``, with its progress bars on a terminal, otherwise with a line for each large download."""
    command = [str(word) for word in (uv, "pip", *words)]
    if sys.stderr.isatty():
        _run(*command)
        return
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        for line in process.stderr or ():
            if not line.startswith(_NOISE):
                print(f"  {line.rstrip()}", file=sys.stderr, flush=True)
    _check(process.returncode, command)


def _run(*words: str | Path) -> None:
    command = [str(word) for word in words]
    _check(subprocess.run(command, check=False).returncode, command)


def _check(code: int, command: list[str]) -> None:
    if code != 0:
        raise InstallError(f"{Path(command[0]).name} {' '.join(command[1:3])} ended with exit code {code}; its output is above")
