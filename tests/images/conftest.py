"""The real control planes of tests/cluster: the runtimes that come with the images are validated by Trainer itself."""

from __future__ import annotations

from cluster.conftest import api, control_plane, generation, restricted_namespace

__all__ = ["api", "control_plane", "generation", "restricted_namespace"]
