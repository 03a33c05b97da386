"""The S3 server versitygw, built from its Go module."""

from __future__ import annotations

from pathlib import Path

from controlplane.go_tool import GoTool

MODULE = Path(__file__).parent
VERSITYGW = GoTool.of_module(
    MODULE, "github.com/versity/versitygw/cmd/versitygw", "versitygw", "the S3 server of tests is built from its Go module"
)
