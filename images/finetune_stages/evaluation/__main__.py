"""``python -m finetune_stages.evaluation``."""

import os
import sys

from .stage import main

if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a normal shutdown of torch and its threads takes as long as a short evaluation.
    os._exit(code)
