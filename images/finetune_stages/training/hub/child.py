"""``python -m finetune_stages.training.hub.child CALL``: call a function of Training Hub.

``CALL`` is a JSON file with ``function`` and ``arguments``. The process is the leader of a process group with torchrun and its workers,
and ends the group if this program's first process is gone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path


def main(call: Path) -> None:
    """Run the call."""
    threading.Thread(target=_end_without_parent, args=(os.getppid(),), daemon=True).start()
    import training_hub  # type: ignore[import-not-found,unused-ignore]

    document = json.loads(call.read_bytes())
    getattr(training_hub, document["function"])(**document["arguments"])


def _end_without_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
