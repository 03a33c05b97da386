"""Golden files: reviewed output. ``UPDATE_GOLDEN=1`` rewrites them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent / "golden"


def assert_golden(name: str, value: Any) -> None:
    """``value`` is what the file ``name`` holds."""
    path = FOLDER / name
    text = yaml.safe_dump(value, sort_keys=True, width=120, allow_unicode=True)
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert yaml.safe_load(path.read_text()) == yaml.safe_load(text)
