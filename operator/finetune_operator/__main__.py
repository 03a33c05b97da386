"""``python -m finetune_operator``: the operator."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    try:
        from finetune_operator.kube.command import main
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed; the operator needs: pip install 'finetune-operator[operator]'")
    main()
