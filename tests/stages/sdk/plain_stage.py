"""A stage that does next to nothing, with every kind of thing that a stage can publish, for the tests of what the kit does."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from finetune_contract.documents import Scalar
from finetune_contract.result import LossPoint, Result
from finetune_stages.sdk import Context, Finished, Reuse, run_stage, seal_directory, verify_seal, write_file
from finetune_stages.sdk.exporter import exporting

WORKED = "worked.txt"
"""A line for each time that work was done, in the workspace unless the inputs name another file."""


def work(context: Context) -> Finished:
    """Publish the directories and files that the inputs name; only rank 0 does."""
    if context.rank > 0:
        return Finished(outputs={})
    stage_inputs = context.document.inputs
    scratch = context.scratch()
    seals = {}
    for name in stage_inputs["directories"]:
        folder = scratch / name
        folder.mkdir(parents=True)
        for file in ("weights.bin", "inner/config.json"):
            write_file(folder / file, f"{name} {file} {stage_inputs['content']}".encode())
        seals[name] = seal_directory(folder)
        context.publish(folder, f"{context.layout.folder('training')}/{name}")
    for name in stage_inputs["files"]:
        write_file(context.path(f"{context.layout.folder('training')}/{name}"), f"{name} {stage_inputs['content']}".encode())
    with (context.workspace / stage_inputs.get("worked", WORKED)).open("a") as file:
        file.write(f"{context.document.run.name} {context.attempt}\n")
    fingerprint: dict[str, Scalar] | None = None if stage_inputs.get("unseen") else {"source": stage_inputs.get("source", "")}
    context.scratch().rmdir()
    return Finished(
        {"digest": seals["final_model"].digest}, {"loss": 0.25, "steps": 3.0, **stage_inputs.get("metrics", {})}, (LossPoint(1, 3.0), LossPoint(2, 0.25)), "made",
        warnings=tuple(stage_inputs.get("warnings", ())), fingerprint=fingerprint,
    )  # fmt: skip


def outputs_exist(context: Context, result: Result) -> bool:
    """As training."""
    seal = verify_seal(context.path(context.layout.final_model), content=False)
    return seal is not None and seal.digest == result.outputs.get("digest")


def revalidate(context: Context, fingerprint: Mapping[str, Scalar]) -> bool:
    """Return whether the source file is unchanged."""
    source = context.path("source.txt")
    return fingerprint == {"source": source.read_text() if source.exists() else ""}


def main() -> int:
    """Run it; ``RANK`` is the number of the process."""
    reuse = Reuse(("final_model", "adapter", "checkpoints/*"), ("results/notes-{stage}.*.txt",), revalidate)
    with exporting(os.environ) as exporter:
        return run_stage(
            ("training",), work, outputs_exist, int(os.environ.get("RANK", "0")), reuse=reuse, on_report=exporter.report,
            warnings=exporter.warnings,
        )  # fmt: skip


def stage_inputs(*more: str, content: str = "1", **others: Any) -> dict[str, Any]:
    """Inputs of the stage: what to publish beside ``final_model``."""
    directories = ["final_model", *(name for name in more if not name.endswith(".txt"))]
    return {"directories": directories, "files": [name for name in more if name.endswith(".txt")], "content": content, **others}


if __name__ == "__main__":
    sys.exit(main())
