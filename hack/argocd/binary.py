"""Argo CD's command, built from its Go module."""

from __future__ import annotations

from pathlib import Path

from controlplane.go_tool import GoTool

MODULE = Path(__file__).parent
ARGOCD = GoTool.of_module(MODULE, "github.com/argoproj/argo-cd/v3/cmd", "argocd", "Argo CD's command is built from its Go module")
