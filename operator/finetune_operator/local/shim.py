"""The shim between kubelet and process: it starts the process, waits for it, and records its exit code.

It is a separate program (``python -I -S shim.py FOLDER``), like containerd's shims, so that a stage continues and its exit code is
recorded if the kubelet is killed. It imports few modules of the standard library and starts in about 20 ms.

In FOLDER it reads ``command.json`` (argv, environment, working directory) and writes ``log``, ``started.json`` and ``exit.json``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

_SCRIPT_ARGUMENTS = 2


def main(folder: str) -> int:
    """Run the command of ``folder`` and wait until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(os.path.join(folder, "command.json"), encoding="utf-8") as stream:  # noqa: PTH118, PTH123 - pathlib costs start-up time
        command = json.load(stream)
    ready, child_end = os.pipe()  # not inherited by the program: exec closes the child's end
    pid = os.fork()
    if pid == 0:
        _exec(folder, command)
    os.close(child_end)
    os.read(ready, 1)  # a signal sent before exec would be lost: the child still ignores it, or has no process group yet
    _write(folder, "started.json", {"pid": pid, "shim": os.getpid(), "startedAt": time.time()})
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    _write(folder, "exit.json", {"exitCode": code if code >= 0 else 128 - code, "finishedAt": time.time()})
    return 0


def _exec(folder: str, command: dict) -> None:  # type: ignore[type-arg]
    """Replace this process with the command: own session, output to the log, killed together with the shim."""
    try:
        os.setsid()
        _die_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        log = os.open(os.path.join(folder, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o664)  # noqa: PTH118
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(command["cwd"])
        os.execvpe(command["argv"][0], command["argv"], command["env"])  # noqa: S606 - running commands is what it is for
    except Exception as error:  # noqa: BLE001 - the fork must not return into the code of the shim
        os.write(2, f"{command['argv'][0]}: {error}\n".encode(errors="replace"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _die_with_parent() -> None:
    """Let the kernel kill this process if the shim is killed (Linux; elsewhere the kubelet cleans up)."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - only here

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _write(folder: str, name: str, data: dict) -> None:  # type: ignore[type-arg]
    aside = os.path.join(folder, f".{name}")  # noqa: PTH118
    with open(aside, "w", encoding="utf-8") as stream:  # noqa: PTH123
        json.dump(data, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(aside, os.path.join(folder, name))  # noqa: PTH105, PTH118


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]) if len(sys.argv) == _SCRIPT_ARGUMENTS else 2)
