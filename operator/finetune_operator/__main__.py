"""``python -m finetune_operator``: the operator."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from finetune_operator.kube.command import main
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name}: this Python package is not installed; pip install 'finetune-operator[operator]'")
    main()
