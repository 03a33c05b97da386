"""A process under a shim: signals that arrive while it starts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from finetune_operator.local.process import Command, Process


async def test_a_signal_that_arrives_at_the_start_ends_the_process(tmp_path: Path) -> None:
    """Until the program is executed, its process ignores SIGTERM: the process counts as started only after that."""
    process = Process(tmp_path / "pod")
    process.folder.mkdir()
    os.mkfifo(process.log)  # holds the new process until somebody reads its log
    await process.start(Command((sys.executable, "-c", "import time; time.sleep(60)"), dict(os.environ), tmp_path))
    await asyncio.sleep(1)
    assert process.started_at is None
    reader = os.open(process.log, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert await process.adopt()
        process.signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert (await process.wait()).code == 128 + signal.SIGTERM
    finally:
        os.close(reader)
        process.signal(signal.SIGKILL)


async def test_a_program_that_does_not_exist_ends_with_its_code(tmp_path: Path) -> None:
    process = Process(tmp_path / "pod")
    await process.start(Command(("/nonexistent/program",), dict(os.environ), tmp_path))
    assert await process.adopt()
    assert (await process.wait()).code == 127
    assert "/nonexistent/program" in process.log.read_text()
