"""Argo CD's own command, built from its Go module. Tests use it to evaluate the manifests for Argo CD."""
