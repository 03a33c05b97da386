"""Local paths of a run, which the command line makes absolute."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_operator.cli.local_backend import LocalBackend
from finetune_operator.local.home import Home


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        ("./rows.jsonl", "{base}/rows.jsonl"),
        ("file:///data/a%20b.jsonl", "/data/a b.jsonl"),
        ("/data/a%20b.jsonl", "/data/a%20b.jsonl"),
        ("org/chat", "org/chat"),
        ("./rows.jsonl ", "./rows.jsonl "),
    ],
)
def test_a_local_uri_becomes_the_path_that_the_stages_read(uri: str, absolute: str, tmp_path: Path) -> None:
    """A malformed one is left to admission, which rejects it."""
    manifest = {"metadata": {"name": "demo"}, "spec": {"dataset": {"uri": uri}}}
    placed = LocalBackend(Home.find(tmp_path)).prepare(manifest, tmp_path.resolve())
    assert placed["spec"]["dataset"]["uri"] == absolute.format(base=tmp_path.resolve())
