"""Sources: what may not happen while they are read."""

from __future__ import annotations

import json
import os

import pytest

from finetune_contract.documents import RunInfo, StageDocument
from finetune_contract.workspace import Attempt
from finetune_stages.dataset.fetch import find_source
from finetune_stages.dataset.source_request import TRAIN_SPLITS, SourceRequest
from finetune_stages.sdk import Context, StageError
from finetune_stages.sources.origin import DATASET


@pytest.fixture
def source(tmp_path):
    """A file of three rows, found."""
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps({"a": number}) + "\n" for number in range(3)))
    document = StageDocument(2, "dataset", RunInfo("demo", "team-a", "0123456789abcdef"), {})
    context = Context(document, tmp_path / "workspace", Attempt(1, 1), "0" * 64)
    return find_source(SourceRequest(str(tmp_path / "chat.jsonl"), DATASET, TRAIN_SPLITS), context, tmp_path)


def test_rows_are_chosen_by_position(source):
    opened = source.open(lambda total: [total - 1, 0])
    assert opened.total == 3
    assert list(opened.rows.texts()) == [b'{"a": 2}', b'{"a": 0}']
    source.require_unchanged()


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text(path.read_text() + "{}\n"),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: (path.rename(path.with_name("old")), path.write_bytes(path.with_name("old").read_bytes())),
    ],
)
def test_a_file_that_changes_while_it_is_read(source, change):
    source.open(range)
    change(source.files[0].path)
    with pytest.raises(StageError) as caught:
        source.require_unchanged()
    assert caught.value.reason.name == "DatasetChanged"
    assert f"{source.name}: changed while it was read" in caught.value.message
