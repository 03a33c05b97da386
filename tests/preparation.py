"""Stage *dataset* in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from finetune_contract import CONTRACT_VERSION
from finetune_contract.codec import encode
from finetune_contract.documents import DatasetInputs, StageDocument
from finetune_contract.workspace import Attempt
from finetune_stages.dataset.prepare import prepare
from finetune_stages.sdk import Context, Finished
from rendering import RUN

Rows = list[dict[str, Any]]


def opened(workspace: Path, uri: str, **inputs: Any) -> Context:
    """The context of the stage on data at ``uri``."""
    document = StageDocument(CONTRACT_VERSION, "dataset", RUN, encode(DatasetInputs(uri, **inputs)))
    context = Context(document, workspace, Attempt(1, 1), "0" * 64)
    context.path(context.layout.root).mkdir(parents=True, exist_ok=True)
    context.become_current()
    return context


def prepared(workspace: Path, source: Path | str, **inputs: Any) -> tuple[Finished, Rows, Rows]:
    """Run the stage; return what it returns, the training rows and the held-out rows."""
    context = opened(workspace, str(source), **inputs)
    finished = prepare(context)
    return finished, *(_rows(context.path(name)) for name in (context.layout.train_data, context.layout.eval_data))


def _rows(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_bytes().splitlines()]
