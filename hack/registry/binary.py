"""The OCI registry of the CNCF project distribution, built from its Go module."""

from __future__ import annotations

from pathlib import Path

from controlplane.go_tool import GoTool

MODULE = Path(__file__).parent
REGISTRY = GoTool.of_module(
    MODULE,
    "github.com/distribution/distribution/v3/cmd/registry",
    "registry",
    "the registry of tests is built from its Go module",
)
