"""Between the runner and one process: starts it, waits, and writes down how it ended.

Run as a program of its own (``python -I -S shim.py FOLDER``), so that a stage goes on, and its end is known, when the runner is
killed; containerd's shims are the model. Standard library only, and few modules: it starts in some 20 ms.

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
    """Run the command of ``folder`` to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(os.path.join(folder, "command.json"), encoding="utf-8") as stream:  # noqa: PTH118, PTH123 - pathlib costs start-up time
        command = json.load(stream)
    pid = os.fork()
    if pid == 0:
        _become(folder, command)
    _write(folder, "started.json", {"pid": pid, "shim": os.getpid(), "startedAt": time.time()})
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    _write(folder, "exit.json", {"exitCode": code if code >= 0 else 128 - code, "finishedAt": time.time()})
    return 0


def _become(folder: str, command: dict) -> None:  # type: ignore[type-arg]
    """Turn into the command: a session of its own, its output in the log, gone when the shim is."""
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
    except OSError as error:
        os.write(2, f"{command['argv'][0]}: {error}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _die_with_parent() -> None:
    """Have the kernel end this process if the shim is killed (Linux; elsewhere the runner cleans up)."""
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
