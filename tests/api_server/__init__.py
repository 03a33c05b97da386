"""The embedded store as an API server: the part of Kubernetes' REST API that operators, kubectl and tests use."""

from .app import application, serving

__all__ = ["application", "serving"]
