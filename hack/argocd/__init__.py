"""Argo CD's own command, built from its Go module: what the manifests tell Argo CD is tried with the code that reads it."""
