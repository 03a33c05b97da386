"""Program of stage *dataset*. Large libraries are imported only if there is work to do."""

from __future__ import annotations

from finetune_contract.result import Result
from finetune_stages.sdk import Context, Finished, Reuse, run_stage, verify_seal
from finetune_stages.sources.cache_limit import limit_caches

from .revalidate import DATASETS, revalidate


def main() -> int:
    """Run the stage and return its exit code."""
    return run_stage(
        ("dataset",), work, outputs_exist, reuse=Reuse(directories=(DATASETS,), revalidate=revalidate), after=limit_caches
    )


def outputs_exist(context: Context, result: Result) -> bool:
    """Return whether the data of an earlier result is still in the run's folder, unchanged."""
    seal = verify_seal(context.path(context.layout.datasets))
    return seal is not None and seal.digest == result.outputs.get("digest")


def work(context: Context) -> Finished:
    """Prepare the data: see :func:`.prepare.prepare`."""
    from .prepare import prepare

    return prepare(context)
