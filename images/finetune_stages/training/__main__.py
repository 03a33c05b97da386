"""``python -m finetune_stages.training``; the zip application starts here too."""

from .stage import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
