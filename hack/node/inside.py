"""The first process of a node's namespaces: it makes the machine look like one of its own, and collects what is orphaned.

Runs as a program, with folders and the places inside at which they appear: FOLDER=PLACE ... Its end is the end of every process here,
and of the mounts and interfaces that they made.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

HIDDEN = ("/run", "/var/lib", "/var/log")
"""Where containerd, kubelet, kube-proxy and the network plugins write what no option moves elsewhere."""
SYSCTLS = {"vm/overcommit_memory": 1, "kernel/panic": 10, "kernel/panic_on_oops": 1}
"""The kubelet sets these for the whole machine; here it finds them set, in files that are laid over them."""
READY = "inside.ready"


def main(arguments: list[str]) -> None:
    """Set up, say so in the first folder, and live until killed."""
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
