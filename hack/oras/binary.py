"""oras, the client of the CNCF project ORAS for what is attached to images, built from its Go module."""

from __future__ import annotations

import hashlib
from pathlib import Path

import progress
from controlplane.go_tool import GoTool
from controlplane.programs import Program

MODULE = Path(__file__).parent
_IMPORT = "oras.land/oras"
# An absolute folder, because this module is not one of the control plane's.
_PROGRAM = Program("oras", str(MODULE), _IMPORT, f"{_IMPORT}/cmd/oras")


def _path(go: str) -> Path:
    digest = hashlib.sha256(go.strip().encode())
    for name in ("go.mod", "go.sum"):
        digest.update((MODULE / name).read_bytes())
    return progress.cache() / "oras" / digest.hexdigest()[:16] / _PROGRAM.name


ORAS = GoTool(_PROGRAM, "the client that attaches files to images is built from its Go module", _path)
