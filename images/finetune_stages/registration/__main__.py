"""``python -m finetune_stages.registration``."""

import os
import sys

from .stage import main

if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: taking all of MLflow's modules down in good order takes longer than registering.
    os._exit(code)
