"""What the tests of faults start from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from finetune_operator.local.store import Store

from .driven import SPEC


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store with one run."""
    store = Store(tmp_path / "store.db")
    run = {
        "apiVersion": "finetunerun.io/v1alpha1",
        "kind": "FineTuneRun",
        "metadata": {"name": "demo", "namespace": "team"},
        "spec": SPEC,
    }
    await store.create(run)
    yield store
    store.close()
