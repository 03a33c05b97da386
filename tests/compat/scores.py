"""Score of a model on the held-out rows of a training, by the code of stage *evaluation* in this process."""

from __future__ import annotations

from pathlib import Path

from finetune_contract.documents import EvaluationInputs, TokenizationInputs
from finetune_contract.workspace import HOLDOUT
from finetune_stages.sdk import quick_imports
from rendering import RUN, Tokenization

_KNOWN: dict[tuple[Path, str], float] = {}


def bits_per_byte(model: Path, workspace: Path) -> float:
    """Return the bits per byte of the held-out rows in a workspace. Equal rows are measured once per model."""
    passages = workspace / RUN.layout.passages(HOLDOUT)
    key = model, passages.read_text()
    if key not in _KNOWN:
        _KNOWN[key] = _measure(model, workspace, passages)
    return _KNOWN[key]


def _measure(model: Path, workspace: Path, passages: Path) -> float:
    with quick_imports():
        from finetune_stages.evaluation.measure import measure
        from finetune_stages.evaluation.passages import RowFile, read_passages

    context = Tokenization(workspace).context(TokenizationInputs(max_seq_len=256))
    inputs = EvaluationInputs("final", log_samples=False)
    measured = measure(context, inputs, model, {HOLDOUT: read_passages(RowFile(passages))}, [])
    return float(measured.results["results"][HOLDOUT]["bits_per_byte,none"])
