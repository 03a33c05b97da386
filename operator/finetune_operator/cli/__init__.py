"""``finetune``: the command line, on the embedded store and on clusters. Every command imports what it needs when it runs, so that help is quick."""

from .app import main

__all__ = ["main"]
