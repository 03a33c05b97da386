"""Builders of child manifests: pure functions from a run to plain JSON documents."""
