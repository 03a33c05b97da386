"""Stage *dataset*."""

from __future__ import annotations

from typing import Any, ClassVar

from finetune_contract.codec import decode
from finetune_contract.documents import DatasetInputs
from finetune_contract.result import DatasetOutputs, Result
from finetune_operator.core.manifests.pod import AWS_SECRET, HF_SECRET, PodNeeds, secrets
from finetune_operator.core.run import Run

from .base import ProgramStage, section


class DatasetStage(ProgramStage):
    """Fetch, check and split the data."""

    name = "dataset"
    program = "dataset"
    condition = "DatasetReady"
    after = ("workspace",)
    COUNTS: ClassVar[tuple[str, ...]] = ("source", "bad")
    """What it counts in ``status.rows``."""

    def inputs(self, run: Run) -> DatasetInputs:
        wish = section(run, "dataset")
        bad_rows = wish.get("badRows") or {}
        return DatasetInputs(
            uri=wish["uri"], eval_uri=wish.get("evalUri"), split=wish.get("split"), revision=wish.get("revision"),
            format=wish["format"], subset=wish["subset"], subset_mode=wish["subsetMode"], train_split=float(wish["trainSplit"]),
            bad_rows=bad_rows["policy"], bad_rows_share=float(bad_rows["share"]), seed=wish["seed"],
            sha256=wish.get("sha256"),
        )  # fmt: skip

    def pod(self, run: Run) -> PodNeeds:
        return PodNeeds(
            cpu="1", memory="4Gi", environment=secrets(section(run, "dataset").get("secretRef"), HF_SECRET, AWS_SECRET)
        )

    def prove(self, run: Run, result: Result) -> str | None:
        found = decode(DatasetOutputs, result.outputs, "outputs")
        return None if found.train_rows > 0 else "the prepared data has no row to train on"

    def tell(self, run: Run, result: Result) -> dict[str, Any]:
        found = decode(DatasetOutputs, result.outputs, "outputs")
        return {"rows": {"source": found.source_rows, "bad": found.dropped_rows}}
