"""``python -m finetune_stages.training.training_hub.child CALL``: call a function of Training Hub.

``CALL`` is a JSON file with ``function`` and ``arguments``. If the process that started this one is gone, this one ends its descendants and
itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from finetune_stages.sdk import quick_imports

from .process_tree import process_tree, send


def main(call: Path) -> None:
    """Run the call."""
    threading.Thread(target=_end_without_parent, args=(os.getppid(),), daemon=True).start()
    with quick_imports():
        import training_hub  # type: ignore[import-not-found,unused-ignore]

    document = json.loads(call.read_bytes())
    getattr(training_hub, document["function"])(**document["arguments"])


def _end_without_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    send(signal.SIGKILL, [member for member in process_tree(os.getpid()) if member[0] != os.getpid()])
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
