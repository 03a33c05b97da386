"""The stage programs without the operator, and programs of one's own in their place: what ``docs/custom.md`` shows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydocs
from finetune_contract.documents import DatasetInputs, EvaluationInputs, ModelInputs
from finetune_operator.core.run import Run
from finetune_operator.core.stages import GRAPH

from .conftest import StagePrograms

ROOT = Path(__file__).parents[2]
OWN = ROOT / "hack/example/own_evaluation/evaluation.py"


def test_a_pipeline_of_one_s_own_around_the_programs(tmp_path: Path, tiny_model: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    pydocs.write_jsonl(rows, [*pydocs.rows("signature", 60), *pydocs.rows("signature", 10)])

    def run() -> Any:
        words = [
            sys.executable,
            ROOT / "hack/example/pipeline.py",
            "--rows",
            rows,
            "--model",
            tiny_model,
            "--work",
            tmp_path / "work",
        ]
        return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout

    first = run()
    assert first.startswith("60 different rows\n")
    told = json.loads(first.splitlines()[-1])
    assert (Path(told["model"]) / "model.safetensors").exists()
    assert told["metrics"]["holdout.bits_per_byte"] > 0
    again = run()
    assert again.count("nothing to do") == 5
    assert json.loads(again.splitlines()[-1]) == told


def test_an_evaluation_of_one_s_own(tmp_path: Path, tiny_model: Path, stage_programs: Callable[[], StagePrograms]) -> None:
    programs = stage_programs()
    rows = tmp_path / "rows.jsonl"
    pydocs.write_jsonl(rows, pydocs.rows("signature", 20))
    assert programs("dataset", DatasetInputs(str(rows), train_split=0.5)).code == 0
    assert programs("model", ModelInputs(str(tiny_model))).code == 0
    package = tmp_path / "own/finetune_stages/evaluation"  # as the image has it
    package.mkdir(parents=True)
    package.parent.joinpath("__init__.py").touch()
    package.joinpath("__main__.py").write_text(OWN.read_text())
    ended = programs("evaluation", EvaluationInputs("base"), environment={"PYTHONPATH": str(tmp_path / "own")})
    assert (ended.code, ended.errors) == (0, "")
    assert ended.result is not None
    assert ended.result.metrics == {"answers.share": 1.0}
    stage = GRAPH.programs["evaluation"]
    assert stage.verify(_RUN, ended.result) is None, "the operator takes it for a result"
    assert stage.status_fields(_RUN, ended.result) == {
        "metrics": {"evaluation": {"answers.share": 1.0}, "higherIsBetter": {"answers.share": True}}
    }
    programs.path(programs.layout.eval_data).write_text("")
    ended = programs("evaluation", EvaluationInputs("base"), environment={"PYTHONPATH": str(tmp_path / "own")})
    assert (ended.code, ended.reason) == (65, "NothingToEvaluate")


_RUN = Run.parse({"metadata": {"name": "demo", "namespace": "team", "uid": "u"}, "spec": {}})
