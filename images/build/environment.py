"""Creation of an image's Python environment from a lock. It runs in the build stage, with the standard library and the stage's pip.

python environment.py LOCK FOLDER --tools TOOLS_LOCK [--accelerator cpu|cuda] [--sbom FILE]

Everything is checked against the lock's hashes, and nothing is resolved. With ``cpu`` the GPU libraries are not installed:
:mod:`cuda_placeholders` describes how torch does without them.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

import cuda_placeholders

_INSTALL = ("install", "-q", "--disable-pip-version-check", "--no-deps", "--no-compile", "--require-hashes")
_NEEDED_TO_BUILD = "setuptools"
"""Packages without wheels: they are built with the lock's setuptools, not with the latest one of an index."""


def requirements(lock: str) -> dict[str, str]:
    """Return the entries of a lock: text by package name. The text of a package with platform-specific versions has all of them."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^\s*#.*\n", "", f"{lock}\n", flags=re.MULTILINE)):
        name = re.match(r"[A-Za-z0-9._-]+", entry)
        if name:
            found[name[0]] = found.get(name[0], "") + entry.rstrip() + "\n"
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = _parser().parse_args(arguments)
    packages = requirements(options.lock.read_text(encoding="utf-8"))
    if options.accelerator == "cpu":
        packages = {name: text for name, text in packages.items() if not cuda_placeholders.is_only_for_gpus(name)}
    _install(options.folder, packages)
    if options.accelerator == "cpu":
        cuda_placeholders.write(_site_packages(options.folder))
    _run(_python(options.folder), "-m", "pip", "uninstall", "-q", "-y", *({"pip", "setuptools"} - set(packages)))
    if options.sbom:
        _write_sbom(options.folder, options.tools, options.sbom)
    compile_all(_site_packages(options.folder))


def compile_all(folder: Path) -> None:
    """Compile byte code without timestamp checks, because pods cannot write it."""
    # A few packages have files with invalid syntax that are never imported.
    words = ("-m", "compileall", "-qq", "-j", "0", "--invalidation-mode", "unchecked-hash", str(folder))
    subprocess.run([sys.executable, *words], check=False)  # noqa: S603 - words of our own


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lock", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tools", type=Path, required=True, help="lock of the tools that are used here")
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--sbom", type=Path, help="where to write what is installed, as CycloneDX")
    return parser


def _install(folder: Path, packages: dict[str, str]) -> None:
    venv.create(folder, with_pip=True)
    with tempfile.TemporaryDirectory() as scratch:
        first, rest = Path(scratch, "first"), Path(scratch, "rest")
        first.write_text(packages.get(_NEEDED_TO_BUILD, ""), encoding="utf-8")
        rest.write_text("".join(packages.values()), encoding="utf-8")
        for lock in (first, rest):
            if lock.read_text(encoding="utf-8"):
                _run(_python(folder), "-m", "pip", *_INSTALL, "--no-build-isolation", "--use-pep517", "-r", lock)


def _write_sbom(folder: Path, tools_lock: Path, sbom: Path) -> None:
    """Write an SBOM with CycloneDX's tool from a temporary environment."""
    sbom.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        venv.create(scratch, with_pip=True)
        tools = _python(Path(scratch))
        _run(tools, "-m", "pip", *_INSTALL, "-r", tools_lock)
        _run(
            tools,
            "-m",
            "cyclonedx_py",
            "environment",
            "--output-reproducible",
            "--output-format",
            "JSON",
            "-o",
            sbom,
            _python(folder),
        )


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


def _site_packages(folder: Path) -> Path:
    (found,) = folder.glob("lib/python*/site-packages")
    return found


def _run(*words: str | Path) -> None:
    subprocess.run([str(word) for word in words], check=True)  # noqa: S603 - words of our own


if __name__ == "__main__":
    main()
