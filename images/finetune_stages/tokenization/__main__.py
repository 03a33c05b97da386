"""``python -m finetune_stages.tokenization``."""

from .stage import main

if __name__ == "__main__":
    raise SystemExit(main())
