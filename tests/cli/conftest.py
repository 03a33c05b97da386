"""What the runs of these tests start from: an empty folder, a tiny base model, a few chat rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import pydocs
from cli.workdir import Workdir


@pytest.fixture
def workdir(tmp_path: Path) -> Workdir:
    """An empty folder."""
    return Workdir(tmp_path)


@pytest.fixture(scope="session")
def chat_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 chat rows."""
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    pydocs.write_jsonl(path, pydocs.rows("signature", 120))
    return path


@pytest.fixture(scope="session")
def small(tiny_model: Path, chat_rows: Path) -> Callable[..., dict[str, Any]]:
    """The specification of a run that takes seconds; sections given are merged over it."""

    def make(**sections: Mapping[str, Any]) -> dict[str, Any]:
        spec: dict[str, dict[str, Any]] = {
            "dataset": {"uri": str(chat_rows)},
            "model": {"uri": str(tiny_model)},
            "training": {
                "epochs": 1, "effectiveBatchSize": 16, "learningRate": 5e-3, "maxSeqLen": 256, "maxTokensPerGPU": 4096,
                "osft": {"trainable": "targets"},
            },
            "evaluation": {"tasks": [], "baseline": True},
        }  # fmt: skip
        for name, values in sections.items():
            spec[name] = {**spec.get(name, {}), **values}
        return spec

    return make
