"""The ends of log files."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_operator.cli.log_lines import LogLines
from finetune_operator.local.store import logs


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64 * 1024])
@pytest.mark.parametrize(
    "content", [b"", b"\n", b"one", b"one\n", b"one\ntwo", b"one\ntwo\nthree\n", b"\n\n\n", "ü\nä\n".encode()]
)
def test_tails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, block: int) -> None:
    monkeypatch.setattr(logs, "_BLOCK", block)
    path = tmp_path / "log"
    path.write_bytes(content)
    lines = content.splitlines(keepends=True)
    for count in range(5):
        assert logs.read_log(path, count, None) == b"".join(lines[len(lines) - min(count, len(lines)) :])


def test_a_start_and_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\nthree\n")
    assert logs.read_log(path, None, None, 4) == b"two\nthree\n"
    assert logs.read_log(path, 1, 3, 4) == b"thr"
    assert logs.read_log(path, 3, 3, 4) == b"two"


def test_a_line_without_an_end_is_printed_in_pieces(capsys: pytest.CaptureFixture[str]) -> None:
    lines = LogLines("")
    for _ in range(3):
        lines.feed(b"x" * 40_000)
    assert [len(line) for line in capsys.readouterr().out.splitlines()] == [80_000]
    lines.feed(b"y\n")
    assert capsys.readouterr().out.splitlines() == ["x" * 40_000 + "y"]
