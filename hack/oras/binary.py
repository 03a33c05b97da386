"""oras, the client of the CNCF project ORAS for what is attached to images, built from its Go module."""

from __future__ import annotations

from pathlib import Path

from controlplane.go_tool import GoTool

MODULE = Path(__file__).parent
ORAS = GoTool.of_module(
    MODULE, "oras.land/oras/cmd/oras", "oras", "the client that attaches files to images is built from its Go module"
)
