"""What all tests share: a tiny model; hypothesis runs the same examples every time, and more of them on request."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from finetune_stages.sdk import quick_imports

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", parent=settings.get_profile("ci"), max_examples=20)
settings.register_profile("long", deadline=None, max_examples=5000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Exclude modules and tests from garbage collection: they live as long as the process, and scanning them takes much of the time."""
    with quick_imports():
        return (yield)


ROWS_OF_THE_MODEL = 300
"""Of the skill that the tiny model learns; stage tests train on rows behind them."""


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A directory with a Qwen2 model of 200,000 weights, its tokenizer and a chat template with ``{% generation %}``.

    It is trained for a few seconds, once for all xdist workers. Read it, copy it, but do not write into it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base if worker_id == "master" else base.parent
    model = shared / "tiny-model"
    with FileLock(shared / "tiny-model.lock"):
        if not model.exists():
            _train(model.with_name("tiny-model.unfinished"))
            model.with_name("tiny-model.unfinished").rename(model)
    return model


def _train(target: Path) -> None:
    """In a process of its own: its thread count and its random numbers are nobody else's business."""
    program = (
        "import sys; from pathlib import Path; import pydocs; from base_model import TINY, train_base_model;"
        f"rows = pydocs.rows('purpose', {ROWS_OF_THE_MODEL}); train_base_model(Path(sys.argv[1]), rows, size=TINY)"
    )
    example = Path(__file__).parents[1] / "hack" / "example"
    environment = {**os.environ, "PYTHONPATH": str(example), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(target)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
