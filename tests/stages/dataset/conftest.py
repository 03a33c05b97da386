"""Servers for the tests of stage *dataset*."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub import Hub
from web_server import FileServer


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """An empty hub."""
    with Hub(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def web(tmp_path: Path) -> Iterator[FileServer]:
    """A web server of the files in ``tmp_path / "web"``."""
    (tmp_path / "web").mkdir()
    with FileServer(tmp_path / "web") as server:
        yield server
