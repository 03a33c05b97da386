"""Stages *registration* and *registry-check*: register name, version and lineage of a model in Kubeflow Model Registry or MLflow."""
