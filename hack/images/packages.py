"""Debian packages for building without Docker."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from build_error import CannotBuildError

LIST = Path(__file__).with_name("packages.txt")


def wanted() -> list[str]:
    """Return the packages of the list."""
    lines = (line.partition("#")[0].strip() for line in LIST.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def missing() -> list[str]:
    """Return the packages that are not installed."""
    command = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    there = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in wanted() if package not in there]


def install() -> list[str]:
    """Install missing packages, and return them.

    Raises:
        CannotBuildError: apt-get is missing or failed, or the user is not root.
    """
    if not shutil.which("apt-get"):
        raise CannotBuildError(f"apt-get: not found; install the equivalents of {', '.join(wanted())}, or Docker, or podman")
    packages = missing()
    if packages and os.geteuid() != 0:
        raise CannotBuildError(
            f"packages: only root may install them; run sudo apt-get install --no-install-recommends {' '.join(packages)}"
        )
    if packages:
        # No service of these packages is needed, so none is started.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for words in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run(["apt-get", *words], env=environment, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise CannotBuildError(f"apt-get {words[0]} failed: {done.stderr.strip()[-800:]}")
    return packages
