"""The Debian packages that building without Docker needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from build_error import CannotBuildError

LIST = Path(__file__).with_name("packages.txt")


def wanted() -> list[str]:
    """The packages of the list."""
    lines = (line.partition("#")[0].strip() for line in LIST.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def missing() -> list[str]:
    """Those that are not installed."""
    command = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *wanted()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    there = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    return [package for package in wanted() if package not in there]


def install() -> list[str]:
    """Install what is missing; what that was.

    Raises:
        CannotBuildError: this is no Debian, or not root, or apt refused.
    """
    if not shutil.which("apt-get"):
        raise CannotBuildError(f"there is no apt-get: install the equivalents of {', '.join(wanted())}, or Docker, or podman")
    packages = missing()
    if packages and os.geteuid() != 0:
        raise CannotBuildError(
            f"only root may install packages: sudo apt-get install --no-install-recommends {' '.join(packages)}"
        )
    if packages:
        # No service starts by itself: none of these has one that is wanted.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for words in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", *packages]):
            done = subprocess.run(["apt-get", *words], env=environment, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise CannotBuildError(f"apt-get {words[0]} failed: {done.stderr.strip()[-800:]}")
    return packages
