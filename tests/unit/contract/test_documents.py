"""What the control plane passes to stages beside their documents."""

from __future__ import annotations

import json
import re

import pytest

from finetune_contract.codec import DocumentError, encode
from finetune_contract.documents import ReadResult, parse_reads


def test_results_are_read_as_they_are_written() -> None:
    found = {"training": ReadResult("a" * 64, "b" * 64), "evaluation": ReadResult(None, "c" * 64), "dataset": ReadResult()}
    assert parse_reads(json.dumps(encode(found))) == found


def test_no_control_plane_is_not_a_control_plane_without_results() -> None:
    assert parse_reads(None) is None
    assert parse_reads("") is None
    assert parse_reads("{}") == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "FINETUNE_READS: it is not JSON"),
        ("[]", "FINETUNE_READS: expected an object with a result for each stage"),
        ('{"training": 1}', "FINETUNE_READS.training: expected an object"),
        ('{"training": {"digest": "x"}}', "FINETUNE_READS.training.digest: unknown field"),
    ],
)
def test_faults_are_named(text: str, words: str) -> None:
    with pytest.raises(DocumentError, match=f"^{re.escape(words)}"):
        parse_reads(text)
