"""Requirements of a node on its machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from controlplane.binaries import go_is_installed

_LIST = Path(__file__).with_name("packages.txt")
_CGROUPS = Path("/sys/fs/cgroup")
_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
_NAMESPACES = ("--net", "--mount", "--pid", "--fork")


def blocker() -> str | None:
    """Return why no node can run on this machine, or ``None``."""
    if sys.platform != "linux":
        return "a node runs on Linux only: its containers are made of what the Linux kernel has"
    if os.geteuid() != 0:
        return "a node needs root, for namespaces, mounts and cgroups: run the tests as root to have it"
    if missing := [name for name in _CONTROLLERS if not _has_controller(name)]:
        return f"a node needs the cgroup controllers {', '.join(_CONTROLLERS)}, and {', '.join(missing)} cannot be used here"
    if packages := missing_packages():
        return f"a node needs the packages {', '.join(packages)}: python hack/node packages installs them"
    if not go_is_installed():
        return "go is not installed: kubelet, kube-proxy and CoreDNS are built from Go modules"
    if subprocess.run([program("unshare"), *_NAMESPACES, "true"], capture_output=True, check=False).returncode != 0:
        return "a node needs namespaces of its own, and this machine does not let root make any: is this a container itself?"
    return None


def missing_packages() -> list[str]:
    """Return the packages that are not installed, in the order of the list."""
    lines = [line.split() for line in _LIST.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return list(dict.fromkeys(package for needed, package in lines if _find(needed) is None))


def install_packages() -> list[str]:
    """Install missing packages, and return them.

    Raises:
        PermissionError: it needs root.
        OSError: apt-get is missing or failed.
    """
    packages = missing_packages()
    if packages and os.geteuid() != 0:
        raise PermissionError(f"{', '.join(packages)}: only root may install them; run this command as root")
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]) if packages else ():
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(["apt-get", "-q", *command], env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"apt-get {command[0]} failed: {done.stderr.strip()[-1000:]}")
    return packages


def program(name: str) -> str:
    """Return the path of a program of the system.

    Raises:
        FileNotFoundError: it is not installed.
    """
    found = _find(name)
    if found is None:
        raise FileNotFoundError(f"{name}: not installed; run python hack/node packages")
    return found


def _find(needed: str) -> str | None:
    # The sbin folders are not in the path of root on every system.
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return shutil.which(needed, path=path)


def _has_controller(name: str) -> bool:
    listed = _CGROUPS / "cgroup.controllers"
    return name in listed.read_text(encoding="utf-8").split() if listed.exists() else (_CGROUPS / name).is_dir()
