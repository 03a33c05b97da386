"""Stage *tokenization* in this process, and models with the templates of several families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rendering import Tokenization, family


@pytest.fixture
def stage(tmp_path: Path) -> Tokenization:
    return Tokenization(tmp_path / "workspace")


@pytest.fixture(scope="module")
def families(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder, made = tmp_path_factory.mktemp("families"), {}

    def find(name: str) -> Path:
        if name not in made:
            made[name] = family(tiny_model, folder / str(len(made)), name)
        return made[name]

    return find
