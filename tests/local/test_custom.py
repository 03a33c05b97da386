"""The plain Job of ``manifests/samples/custom``, run as a node runs it."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

import pydocs
from finetune_operator.api.kinds import JOB
from finetune_operator.core.observation import ChildState, child_state
from finetune_operator.local.kubelet import ProcessKubelet
from finetune_operator.local.pod_worker import Node
from finetune_operator.local.store import Store
from finetune_operator.local.workload_controller import WorkloadController
from waiting import eventually

SAMPLE = Path(__file__).parents[2] / "manifests/samples/custom/dataset-job.yaml"


async def test_the_data_set_program_as_a_plain_job(store: Store, node: Node, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    pydocs.write_jsonl(rows, pydocs.rows("signature", 30))
    claim, document, job = yaml.safe_load_all(SAMPLE.read_text(encoding="utf-8"))
    wish = json.loads(document["data"]["dataset.json"])
    wish["inputs"] |= {"uri": str(rows), "subset": 20}
    document["data"]["dataset.json"] = json.dumps(wish)
    async with ProcessKubelet(node).running(), WorkloadController(store).running():
        for manifest in (claim, document, job):
            manifest["metadata"]["namespace"] = "team"
            await store.create(manifest)
        found = await eventually(
            lambda: store.get(JOB, "team", "my-dataset"),
            lambda found: child_state(found) in (ChildState.SUCCEEDED, ChildState.FAILED),
        )
    assert child_state(found) is ChildState.SUCCEEDED
    made = tmp_path / "volumes/team/my-workspace/runs/my-data-00000001/datasets"
    assert len((made / "train.jsonl").read_text().splitlines()) == 18
    assert len((made / "eval.jsonl").read_text().splitlines()) == 2
