"""Stages *registration* and *registry-check*: the model's name, version and lineage into Kubeflow Model Registry or MLflow."""
