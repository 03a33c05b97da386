"""``hack/crdlint``: the API server's validation as a program."""

from __future__ import annotations

import hashlib
from pathlib import Path

import progress

from .go_tool import GoTool
from .programs import Program

_PROGRAM = Program("crdlint", "crdlint", "k8s.io/apiextensions-apiserver", ".", Path(__file__).resolve().parents[1])


def _path(go: str) -> Path:
    sources = [(_PROGRAM.folder / name).read_bytes() for name in ("main.go", "go.mod", "go.sum")]
    digest = hashlib.sha256(b"\0".join([go.encode(), *sources])).hexdigest()[:16]
    return progress.cache() / f"crdlint-{digest}"


CRDLINT = GoTool(_PROGRAM, "crdlint is built from Go modules", _path)
