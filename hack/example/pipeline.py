"""A pipeline of one's own around the stage programs: a step before them, a step after them, no operator.

    python hack/example/pipeline.py --rows ROWS.jsonl --model FOLDER --work FOLDER

``docs/custom.md`` explains it. Each program is started as its container would be, with one JSON document; it repeats its result at once
if it has done the same work before, so that this pipeline can be started again at any point.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

RUN = {"name": "by-hand", "namespace": "here", "uid": "00000001"}
FOLDER = "runs/by-hand-00000001"


def without_repetition(rows: Path, target: Path) -> int:
    """A step of one's own before the data set program: rows that are there twice are left out. How many stay."""
    kept = dict.fromkeys(filter(None, rows.read_bytes().split(b"\n")))  # text may hold other line ends, which end no row
    target.write_bytes(b"".join(row + b"\n" for row in kept))
    return len(kept)


def stage(name: str, inputs: dict[str, Any], work: Path) -> dict[str, Any]:
    """Run one stage program; its result.

    Raises:
        SystemExit: it failed, with its exit code. Its output has the reason.
    """
    document = work / f"{name}.json"
    document.write_text(json.dumps({"contractVersion": 2, "stage": name, "run": RUN, "inputs": inputs}), encoding="utf-8")
    result = work / f"{name}.result.json"
    digest = hashlib.sha256(document.read_bytes() + _read_by(name, work)).hexdigest()
    environment = {
        **os.environ, "FINETUNE_CONFIG": str(document), "FINETUNE_WORKSPACE": str(work / "workspace"),
        "FINETUNE_RESULT": str(result), "FINETUNE_INPUTS_DIGEST": digest,
    }  # fmt: skip
    program = "evaluation" if name == "baseline" else name
    code = subprocess.run([sys.executable, "-m", f"finetune_stages.{program}"], env=environment, check=False).returncode
    if code:
        raise SystemExit(code)
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))["finetune"]
    return found


def _read_by(name: str, work: Path) -> bytes:
    """What a program's result depends on beside its document: the results of those that it reads."""
    reads = {
        "tokenization": ("dataset", "model"), "training": ("tokenization", "model"), "evaluation": ("training", "tokenization"),
    }.get(name, ())  # fmt: skip
    return json.dumps([_outputs(work / f"{other}.result.json") for other in reads], sort_keys=True).encode()


def _outputs(result: Path) -> Any:
    return json.loads(result.read_text(encoding="utf-8"))["finetune"]["outputs"]


def main() -> None:
    """The pipeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("rows", "model", "work"):
        parser.add_argument(f"--{option}", type=Path, required=True)
    chosen = parser.parse_args()
    work = chosen.work.resolve()
    (work / "workspace").mkdir(parents=True, exist_ok=True)
    print(without_repetition(chosen.rows, work / "rows.jsonl"), "different rows")
    stage("dataset", {"uri": str(work / "rows.jsonl"), "trainSplit": 0.8}, work)
    stage("model", {"uri": str(chosen.model.resolve())}, work)
    stage("tokenization", {"maxSeqLen": 256}, work)
    stage("training", {
        "algorithm": "osft", "engine": "portable", "epochs": 1, "effectiveBatchSize": 16, "maxTokensPerGpu": 4096,
        "maxSeqLen": 256, "learningRate": 5e-3, "osft": {"unfreezeRankRatio": 0.25, "trainable": "targets"},
    }, work)  # fmt: skip
    measured = stage("evaluation", {"subject": "final"}, work)
    # A step of one's own after it: what others publish, compare or gate.
    print(json.dumps({"model": str(work / "workspace" / FOLDER / "training/final_model"), "metrics": measured["metrics"]}))


if __name__ == "__main__":
    main()
