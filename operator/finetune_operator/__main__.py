"""``python -m finetune_operator``: the operator."""

from __future__ import annotations

from finetune_operator.kube.command import main

if __name__ == "__main__":
    main()
