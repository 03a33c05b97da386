"""``python -m finetune_stages.model``."""

import os

from finetune_contract import exitcodes

from .stage import main

if __name__ == "__main__":
    code = main()
    if code == exitcodes.INTERRUPTED:
        os._exit(code)  # a normal exit would wait for a library's download threads
    raise SystemExit(code)
