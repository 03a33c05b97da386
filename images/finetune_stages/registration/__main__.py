"""``python -m finetune_stages.registration``."""

import os
import sys

from .stage import main

if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: a normal shutdown of MLflow's modules takes longer than the registration.
    os._exit(code)
