"""The S3 server versitygw, built from its Go module."""

from __future__ import annotations

import hashlib
from pathlib import Path

import progress
from controlplane.go_tool import GoTool
from controlplane.programs import Program

MODULE = Path(__file__).parent
_IMPORT = "github.com/versity/versitygw"
# An absolute folder, because this module is not one of the control plane's.
_PROGRAM = Program("versitygw", str(MODULE), _IMPORT, f"{_IMPORT}/cmd/versitygw")


def _path(go: str) -> Path:
    digest = hashlib.sha256(go.strip().encode())
    for name in ("go.mod", "go.sum"):
        digest.update((MODULE / name).read_bytes())
    return progress.cache() / "versitygw" / digest.hexdigest()[:16] / _PROGRAM.name


VERSITYGW = GoTool(_PROGRAM, "the S3 server of tests is built from its Go module", _path)
