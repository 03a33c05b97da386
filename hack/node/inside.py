"""The first process of a node's namespaces: it sets up the file systems, and reaps orphans.

It runs as a program with folders and their mount points: FOLDER=PLACE ... All processes, mounts and interfaces in the namespaces end with
it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

HIDDEN = ("/run", "/var/lib", "/var/log")
"""Folders in which containerd, kubelet, kube-proxy and network plugins write without an option for another path."""
SYSCTLS = {"vm/overcommit_memory": 1, "kernel/panic": 10, "kernel/panic_on_oops": 1}
"""Settings of the kernel that the kubelet requires. Files with these values are mounted over them, so that the machine is not changed."""
READY = "inside.ready"


def main(arguments: list[str]) -> None:
    """Set up, write a marker into the first folder, and run until killed."""
    places = [(os.open(folder, os.O_PATH), place) for folder, _, place in (one.partition("=") for one in arguments)]
    for hidden in HIDDEN:
        _mount("-t", "tmpfs", "-o", "mode=755", "none", hidden)
    for descriptor, place in places:
        Path(place).mkdir(parents=True)
        _mount("--bind", f"/proc/self/fd/{descriptor}", place, keep=descriptor)
    for name, value in SYSCTLS.items():
        shown = Path("/run", name.replace("/", "_"))
        shown.write_text(f"{value}\n", encoding="utf-8")
        _mount("--bind", str(shown), f"/proc/sys/{name}")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1", encoding="utf-8")
    Path(places[0][1], READY).touch()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.2)


def _mount(*arguments: str, keep: int | None = None) -> None:
    subprocess.run(["mount", *arguments], check=True, pass_fds=() if keep is None else (keep,))


if __name__ == "__main__":
    main(sys.argv[1:])
