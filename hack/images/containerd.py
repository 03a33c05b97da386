"""Handing images to a node's containerd, where no registry stands between."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from build_error import CannotBuildError

ADDRESS = "/run/containerd/containerd.sock"
NAMESPACE = "k8s.io"
"""The namespace in which containerd keeps what a kubelet sees."""


def load(archive: Path, address: str = ADDRESS, namespace: str = NAMESPACE) -> None:
    """Import an archive; an image that is there already is replaced.

    Raises:
        CannotBuildError: ctr is not installed, or containerd does not take the archive.
    """
    if not shutil.which("ctr"):
        raise CannotBuildError("ctr, containerd's own command, is not installed: it comes with containerd")
    command = ["ctr", "--address", address, "--namespace", namespace, "images", "import", str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotBuildError(f"containerd at {address} did not take {archive}: {done.stderr.strip()[-800:]}")
