"""Load images into the containerd of a node, without a registry."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from build_error import CannotBuildError

ADDRESS = "/run/containerd/containerd.sock"
NAMESPACE = "k8s.io"
"""The namespace in which a kubelet looks for images."""


def load(archive: Path, address: str = ADDRESS, namespace: str = NAMESPACE) -> None:
    """Import an archive, and replace an image with the same name.

    Raises:
        CannotBuildError: ctr is not installed, or containerd rejects the archive.
    """
    if not shutil.which("ctr"):
        raise CannotBuildError("ctr: not installed; install containerd")
    command = ["ctr", "--address", address, "--namespace", namespace, "images", "import", str(archive)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotBuildError(f"{archive}: containerd at {address} rejects it: {done.stderr.strip()[-800:]}")
