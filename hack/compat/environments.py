"""Environments outside the checkout, one for each set of versions, from its lock.

NVIDIA's libraries are left out. Placeholders replace them, as in ``.venv`` on machines without a GPU.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

import cuda_placeholders
import progress
from bootstrap.accelerator import missing_tools
from bootstrap.install import is_replaced
from build_error import CannotBuildError
from controlplane.binaries import not_built
from environment import requirements

HERE = Path(__file__).parent
_LAYOUT = "1"
"""Changed when this module makes other environments from the same locks."""
_CALLED = "this environment has no GPU libraries"


def python(name: str) -> Path:
    """Return the Python of a set's environment.

    Raises:
        NotBuiltError: the environment is not there.
    """
    if not is_made(name):
        raise not_built([f"the environment of the libraries {name}"], "make compat")
    return _folder(name) / "bin" / "python"


def is_made(name: str) -> bool:
    """Return whether a set's environment is there."""
    return _ready(name).exists()


def root() -> Path:
    """Return the folder of all environments."""
    return progress.cache() / "compat"


def blocker() -> str | None:
    """Return why this machine cannot make the environments, as a clause; ``None`` if it can."""
    if sys.platform != "linux":
        return f"the libraries of the images do not exist for {sys.platform}"
    missing = list(missing_tools())
    return f"{' and '.join(missing)} cannot be found; install gcc and binutils" if missing else None


def make(name: str) -> None:
    """Make a set's environment, once for each state of its lock.

    Raises:
        CannotBuildError: this machine lacks a program that it needs.
        subprocess.CalledProcessError: uv cannot install the packages.
    """
    if (reason := blocker()) is not None:
        raise CannotBuildError(f"the environment of the libraries {name}: {reason}")
    folder = _folder(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        if not is_made(name):
            with progress.step(f"installing the libraries {name}, 2 GB on disk", f"compat-{name}"):
                _install(name, folder)
            _ready(name).touch()


def _install(name: str, folder: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, folder], check=True)
    wanted = requirements(_lock(name).read_text(encoding="utf-8"))
    lock = folder / "requirements.lock"
    lock.write_text("".join(text for package, text in wanted.items() if not is_replaced(package)), encoding="utf-8")
    interpreter = folder / "bin" / "python"
    subprocess.run([uv, "pip", "sync", "-q", "--compile-bytecode", "--require-hashes", "--python", interpreter, lock], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    cuda_placeholders.write(site, _CALLED)
    subprocess.run([interpreter, "-c", "import torch"], check=True)


def _lock(name: str) -> Path:
    return HERE / f"{name}.lock"


def _folder(name: str) -> Path:
    script = Path(cuda_placeholders.__file__).read_text(encoding="utf-8")
    parts = (_LAYOUT, sys.version, script, _lock(name).read_text(encoding="utf-8"))
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return root() / f"{name}-{digest}"


def _ready(name: str) -> Path:
    folder = _folder(name)
    return folder.with_name(f"{folder.name}.ready")
