"""Run a root file system with runc like a container of a kubelet, for engines that build and do not run.

https://github.com/opencontainers/runtime-spec/blob/main/config.md
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_error import CannotBuildError

Json = dict[str, Any]

_TMPFS = ["nosuid", "nodev", "mode=1777", "size=2g"]
_MOUNTS: list[Json] = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"]},
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": _TMPFS},
    {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": _TMPFS},
]
_HIDDEN = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]


@dataclass(frozen=True)
class Confined:
    """A process in a root file system: any user, group 0, a read-only root, no capabilities, no network."""

    root: Path
    command: Sequence[str]
    environment: Mapping[str, str]
    mounts: Mapping[Path, str]
    user: int


def run(confined: Confined, seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a process to its end, and return its output, with errors in it.

    Raises:
        CannotBuildError: runc is not installed.
        subprocess.TimeoutExpired: it did not end in time, and was killed.
    """
    with started(confined) as (process, _):
        output, _ = process.communicate(timeout=seconds)
        return subprocess.CompletedProcess(list(confined.command), process.returncode, output, "")


@contextlib.contextmanager
def started(confined: Confined) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a process in this context; yield it, and its name for ``runc kill``.

    Raises:
        CannotBuildError: runc is not installed.
    """
    if not shutil.which("runc"):
        raise CannotBuildError("runc: not installed; run python hack/images packages")
    name = f"finetune-{uuid.uuid4().hex[:12]}"
    with tempfile.TemporaryDirectory() as bundle:
        Path(bundle, "config.json").write_text(json.dumps(_configuration(confined)), encoding="utf-8")
        with subprocess.Popen(
            ["runc", "run", "--bundle", bundle, name], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        ) as process:  # fmt: skip
            try:
                yield process, name
            finally:
                if process.poll() is None:
                    send_signal(name, "KILL")
                    process.wait()
                subprocess.run(["runc", "delete", "--force", name], capture_output=True, check=False)


def send_signal(name: str, signal: str) -> None:
    """Send a signal to the first process of a container, like a kubelet."""
    subprocess.run(["runc", "kill", name, signal], capture_output=True, check=False)


def _configuration(confined: Confined) -> Json:
    bound = [
        {"destination": inside, "type": "bind", "source": str(path), "options": ["rbind", "rw"]}
        for path, inside in confined.mounts.items()
    ]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(confined.root), "readonly": True},
        "hostname": "trial",
        "process": {
            "user": {"uid": confined.user, "gid": 0},
            "args": list(confined.command),
            "env": [f"{name}={value}" for name, value in confined.environment.items()],
            "cwd": "/",
            "capabilities": {kind: [] for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "mounts": [*_MOUNTS, *bound],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "network")],
            "maskedPaths": _HIDDEN,
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }
