"""Files that the evaluation writes: results and samples, without secrets."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from finetune_stages.evaluation.stage import _write

TOKEN = "hf_" + "a1B2c3D4e5" * 3


def test_results_and_samples_have_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_LOGIN", 'pa"ss wörd')
    monkeypatch.setenv("FINETUNE_SECRETS", "MY_LOGIN")
    sample = {
        "doc": {"text": f"HF_TOKEN={TOKEN}", 'pa"ss wörd': [1]},
        "arguments": [('a pa"ss wörd', {"until": None})],
        "acc": np.float64(0.5),
    }
    results: dict[str, Any] = {"configs": {"quiz": {"metadata": {dt.date(2020, 1, 1): {TOKEN}}}}, "n": np.int64(3)}
    measured = SimpleNamespace(samples={"quiz": [sample]}, results=results)
    samples, whole = _write(tmp_path, "evaluation", measured)  # type: ignore[arg-type]
    assert json.loads(samples.read_text()) == {
        "doc": {"text": "HF_TOKEN=***", "***": [1]}, "arguments": [["a ***", {"until": None}]], "acc": 0.5,
    }  # fmt: skip
    assert json.loads(whole.read_text()) == {"configs": {"quiz": {"metadata": {"2020-01-01": ["***"]}}}, "n": 3}
