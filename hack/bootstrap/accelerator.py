"""The variant of the environment for this machine: with NVIDIA's libraries, or with placeholders for them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

Accelerator = Literal["cpu", "cuda"]
Choice = Literal["auto", "cpu", "cuda"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
_DRIVER = ("dev/nvidia*", "proc/driver/nvidia", "usr/lib/wsl/lib/libcuda.so.1")
"""Files of an NVIDIA driver on Linux, in containers, and on the Windows Subsystem for Linux."""
_TOOLS = (("cc", "gcc"), ("readelf",), ("nm",))
"""Programs that :mod:`cuda_placeholders` runs, with alternatives."""


class ChoiceError(ValueError):
    """The requested accelerator is not possible on this machine. The message states why, and what to do."""


def preferred(choice: Choice, root: Path = Path("/"), platform: str = sys.platform) -> tuple[Accelerator, str]:
    """Return the packages for the request and the driver of this machine, and the reason as a clause.

    Args:
        choice: what the user requests; ``auto`` decides by the driver.
        root: the root of the file system.
        platform: as in :data:`sys.platform`. Only Linux has packages of NVIDIA's.
    """
    if platform != "linux":
        return "cpu", f"NVIDIA's packages do not exist for {platform}"
    if choice != "auto":
        return choice, "requested"
    return ("cuda", "this machine has an NVIDIA driver") if has_driver(root) else ("cpu", "this machine has no NVIDIA driver")


def resolve(choice: Choice, root: Path = Path("/"), platform: str = sys.platform) -> tuple[Accelerator, str]:
    """Return the preferred packages, if this machine has the programs to install them, and the reason as a clause.

    Raises:
        ChoiceError: the placeholders are requested and cannot be compiled.
    """
    found, reason = preferred(choice, root, platform)
    missing = list(missing_tools()) if found == "cpu" and platform == "linux" else []
    if not missing:
        return found, reason
    if choice == "cpu":
        raise ChoiceError(
            f"ACCELERATOR=cpu: {_and(missing)} cannot be found, which the placeholders of NVIDIA's libraries are compiled with; "
            "install gcc and binutils, or set ACCELERATOR=cuda"
        )
    return "cuda", (
        f"there is no NVIDIA driver, but without {_and(missing)} nothing can take the place of NVIDIA's libraries: "
        "3 GB more; install gcc and binutils and run make setup again to leave them out"
    )


def has_driver(root: Path) -> bool:
    """Return whether an NVIDIA driver is loaded."""
    return any(any(root.glob(pattern)) for pattern in _DRIVER)


def missing_tools() -> Iterable[str]:
    """Yield the programs that compiling placeholders needs and this machine lacks."""
    for names in _TOOLS:
        if not any(shutil.which(name) for name in names):
            yield " or ".join(names)


def _and(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
