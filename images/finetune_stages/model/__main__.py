"""``python -m finetune_stages.model``."""

import os

from finetune_contract import exitcodes

from .stage import main

if __name__ == "__main__":
    code = main()
    if code == exitcodes.INTERRUPTED:
        os._exit(code)  # Python would wait for the threads of a library that still downloads
    raise SystemExit(code)
