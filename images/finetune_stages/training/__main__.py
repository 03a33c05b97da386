"""``python -m finetune_stages.training``; also the entry point of the zip application."""

from .stage import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
