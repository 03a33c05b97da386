"""Where a training process writes, and what the libraries find around them when they are imported."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune_contract.workspace import Attempt
from finetune_stages.sdk import Context

from .machine import processors
from .processes import Processes


@contextmanager
def private_folder(context: Context, processes: Processes) -> Iterator[Path]:
    """Where this process writes: rank 0 in its attempt's folder, for it publishes from there. It is gone afterwards."""
    if processes.rank > 0:
        with tempfile.TemporaryDirectory(prefix="finetune-training-") as name:
            yield Path(name)
        return
    folder = context.scratch()
    for other in folder.parent.iterdir():
        if _is_earlier(other.name, context.attempt):
            shutil.rmtree(other, ignore_errors=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prepare_environment(folder: Path, processes: Processes) -> None:
    """What the libraries read when they are imported: no network, no bars, caches in ``folder``, as many threads as there are."""
    caches = {"HF_HOME": "hub", "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
    os.environ.update({variable: str(folder / name) for variable, name in caches.items()})
    os.environ.update(
        HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1", TRANSFORMERS_VERBOSITY="error",
    )  # fmt: skip
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, processors() // processes.per_node)))
    processes.announce()


def _is_earlier(name: str, attempt: Attempt) -> bool:
    try:
        return Attempt.parse(name).order < attempt.order
    except ValueError:  # the file that names the current attempt, or nothing of ours
        return False
