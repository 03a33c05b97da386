"""The OCI registry of the CNCF project distribution, built from its Go module."""

from __future__ import annotations

import hashlib
from pathlib import Path

import progress
from controlplane.go_tool import GoTool
from controlplane.programs import Program

MODULE = Path(__file__).parent
_IMPORT = "github.com/distribution/distribution/v3"
# An absolute folder, because this module is not one of the control plane's.
_PROGRAM = Program("registry", str(MODULE), _IMPORT, f"{_IMPORT}/cmd/registry")


def _path(go: str) -> Path:
    digest = hashlib.sha256(go.strip().encode())
    for name in ("go.mod", "go.sum"):
        digest.update((MODULE / name).read_bytes())
    return progress.cache() / "registry" / digest.hexdigest()[:16] / _PROGRAM.name


REGISTRY = GoTool(_PROGRAM, "the registry of tests is built from its Go module", _path)
