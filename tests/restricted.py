"""Commands that run a program under limits which the kernel itself enforces, for tests of what happens at them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path


def without_privileges(command: Sequence[str]) -> list[str]:
    """The command as a user whom file modes concern: root without its capabilities, or whoever runs the tests."""
    return [*(["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []), *command]


def in_a_small_volume(command: Sequence[str], place: Path, kilobytes: int, listing: Path) -> list[str]:
    """The command with a file system of that size mounted at ``place``, which only it sees.

    The paths that exist at its end are written to ``listing``, one a line, because they are then removed.
    """
    script = (
        f"mount -t tmpfs -o size={kilobytes}k none {place} || exit 99\n"
        f"{shlex.join(command)}; code=$?\n"
        f"find {place} > {listing}; exit $code"
    )
    namespace = ["--mount"] if os.geteuid() == 0 else ["--mount", "--map-root-user"]
    return ["unshare", *namespace, "sh", "-c", script]
