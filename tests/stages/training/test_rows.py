"""Rows as training maps them from the files of stage *tokenization*."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pydocs
from finetune_contract import reasons
from finetune_stages.sdk import StageError
from finetune_stages.training.rows import IGNORED, Rows
from rendering import RUN, Tokenization


@pytest.fixture
def stage(tmp_path: Path, tiny_model: Path) -> Tokenization:
    stage = Tokenization(tmp_path)
    stage.link_model(tiny_model)
    stage.write(pydocs.rows("signature", 5))
    stage()
    return stage


def test_rows_are_mapped_and_not_read(stage):
    rows = Rows.open(stage.workspace, RUN.layout, 4096)
    assert len(rows) == 5
    assert all(isinstance(values, np.memmap) for values in (rows.tokens, rows.learned, rows.offsets))
    assert (rows.tokens.dtype, rows.learned.dtype, rows.offsets.dtype) == (np.int32, np.bool_, np.int64)
    assert rows.lengths.sum() == len(rows.tokens) == len(rows.learned)
    assert np.array_equal(rows.labels == IGNORED, ~rows.learned)
    assert rows.dropped == 0


def test_a_row_that_is_too_long_is_rejected(stage):
    with pytest.raises(
        StageError, match=r"training.maxSeqLen: a row in .*/tokens has \d+ tokens, more than 3; rerun from"
    ) as raised:
        Rows.open(stage.workspace, RUN.layout, 3)
    assert raised.value.reason is reasons.BAD_TRAINING_VALUE


@pytest.mark.parametrize("name", ["tokens.npy", ".finetune.json"])
def test_rows_that_are_not_there(stage, name):
    stage.path(f"tokens/{name}").unlink()
    with pytest.raises(StageError, match="rerun from stage training") as raised:
        Rows.open(stage.workspace, RUN.layout, 4096)
    assert raised.value.reason is reasons.DATASET_NOT_FOUND
