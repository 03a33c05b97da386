"""Stage *dataset*."""

from __future__ import annotations

from typing import Any

from finetune_contract.codec import decode
from finetune_contract.documents import DatasetInputs
from finetune_contract.result import DatasetOutputs, Result
from finetune_operator.api import stages
from finetune_operator.core.manifests.pod import AWS_SECRET, HF_SECRET, PodNeeds, secrets
from finetune_operator.core.resolved_spec import Resources
from finetune_operator.core.run import Run

from .base import ProgramStage


class DatasetStage(ProgramStage):
    """Fetch, check and split the data."""

    definition = stages.DATASET
    OWNS = ("rows.source", "rows.bad")

    def inputs(self, run: Run) -> DatasetInputs:
        spec = run.resolved.dataset
        return DatasetInputs(
            uri=spec.uri, eval_uri=spec.eval_uri, split=spec.split, revision=spec.revision, format=spec.format, subset=spec.subset,
            subset_mode=spec.subset_mode, train_split=spec.train_split, split_by=spec.split_by, split_field=spec.split_field, bad_rows=spec.bad_rows.policy,
            bad_rows_share=spec.bad_rows.share, seed=spec.seed, sha256=spec.sha256,
        )  # fmt: skip

    def pod(self, run: Run) -> PodNeeds:
        return PodNeeds(
            resources=Resources("1", "4Gi"), environment=secrets(run.resolved.dataset.secret_ref, HF_SECRET, AWS_SECRET)
        )

    def verify(self, run: Run, result: Result) -> str | None:
        found = decode(DatasetOutputs, result.outputs, "outputs")
        return None if found.train_rows > 0 else "the prepared data has no row to train on"

    def status_fields(self, run: Run, result: Result) -> dict[str, Any]:
        found = decode(DatasetOutputs, result.outputs, "outputs")
        return {"rows": {"source": found.source_rows, "bad": found.dropped_rows}}
