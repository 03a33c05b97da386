"""The command line ``finetune``, for local runs and clusters.

Every command imports its modules when it runs, so that help starts quickly.
"""

from .app import main

__all__ = ["main"]
