"""The layout of the workspace is part of the contract: a change of it is a change of the release."""

from __future__ import annotations

import pytest

from finetune_contract import CONTRACT_VERSION
from finetune_contract.codec import DocumentError
from finetune_contract.documents import RunInfo, StageDocument
from finetune_contract.workspace import Attempt


def test_the_paths_of_a_run() -> None:
    layout = RunInfo("demo", "team", "12345678-90ab").layout
    attempt = Attempt(2, 3)
    assert {
        layout.train_data, layout.eval_data, layout.base_model, layout.checkpoints, layout.final_model, layout.pipeline_log("dataset"), layout.pipeline_log("training"),
        layout.result("training", 2, "abcdef0123456789"), layout.newest_result("training"), layout.attempt("training", attempt),
        layout.current("training"), layout.log("training", attempt, 1), layout.train_locations, layout.eval_locations,
        layout.token_ids, layout.learned_tokens, layout.token_offsets, layout.sample, layout.passages("a/b"),
    } == {
        "runs/demo-12345678/datasets/train.jsonl", "runs/demo-12345678/datasets/eval.jsonl", "runs/demo-12345678/base_model",
        "runs/demo-12345678/training/checkpoints", "runs/demo-12345678/training/final_model", "runs/demo-12345678/pipeline_log.txt", "runs/demo-12345678/training/pipeline_log.txt",
        "runs/demo-12345678/training/results/training.2.abcdef012345.json", "runs/demo-12345678/training/results/training.json",
        "runs/demo-12345678/training/attempts/training/2.3", "runs/demo-12345678/training/attempts/training/current",
        "runs/demo-12345678/training/logs/training.2.3.1.log", "runs/demo-12345678/datasets/train.locations.npy",
        "runs/demo-12345678/datasets/eval.locations.npy", "runs/demo-12345678/tokens/tokens.npy",
        "runs/demo-12345678/tokens/learned.npy", "runs/demo-12345678/tokens/offsets.npy",
        "runs/demo-12345678/tokens/sample.json",
        "runs/demo-12345678/tokens/passages/a%2Fb.jsonl",
    }  # fmt: skip


def test_attempts_are_ordered_by_round_first() -> None:
    assert Attempt.parse("2.1").order > Attempt.parse("1.10").order > Attempt.parse("1.9").order
    assert str(Attempt(1, 10)) == "1.10"
    with pytest.raises(ValueError, match="invalid literal"):
        Attempt.parse("one")


def test_a_document_of_another_contract_is_rejected() -> None:
    good = {
        "contractVersion": CONTRACT_VERSION,
        "stage": "dataset",
        "run": {"name": "n", "namespace": "s", "uid": "u"},
        "inputs": {},
    }
    assert StageDocument.parse(good).stage == "dataset"
    for bad in ({**good, "contractVersion": 1}, [], None):
        with pytest.raises(
            DocumentError, match=r"contractVersion: the document has .*, and this program supports 2; use matching releases"
        ):
            StageDocument.parse(bad)
