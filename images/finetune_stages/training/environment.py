"""Private folder and environment variables of a training process."""

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
    """Folder for this process's files, removed afterwards. Rank 0 uses its attempt's folder, because it publishes from there."""
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
    """Set the variables that the libraries read at import: no network, no progress bars, caches in ``folder``, number of threads."""
    caches = {"HF_HOME": "hub", "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
    os.environ.update({variable: str(folder / name) for variable, name in caches.items()})
    os.environ.update(
        HF_HUB_OFFLINE="1", HF_HUB_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_TELEMETRY="1", TRANSFORMERS_VERBOSITY="error",
    )  # fmt: skip
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, processors() // processes.per_node)))


def _is_earlier(name: str, attempt: Attempt) -> bool:
    try:
        return Attempt.parse(name).order < attempt.order
    except ValueError:  # the file with the current attempt, or a foreign file
        return False
