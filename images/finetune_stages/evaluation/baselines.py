"""Scores of base models that other runs of the volume measured: the same model is not asked the same questions twice.

Beside ``cache/results`` (see :mod:`finetune_stages.sdk.reuse`), for a baseline depends on less than its inputs' digest says: not
on the rows that are trained on, nor on the image. It stays when the run that measured it is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune_contract.codec import digest, encode
from finetune_contract.documents import EvaluationInputs, Scalar
from finetune_contract.workspace import CACHE_BASELINES
from finetune_stages.sdk import Context, Finished, seal_directory, verify_seal, write_file
from finetune_stages.sdk.workspace import copy_or_link_file
from finetune_stages.sources.cache import store_entry
from finetune_stages.sources.work_folder import work_folder

_FINISHED = "finished.json"


def baseline_entry(context: Context, inputs: EvaluationInputs, fingerprint: Mapping[str, Scalar]) -> Path:
    """Return where the cache keeps the answers to these questions. ``fingerprint``: see :func:`.questions.depends_on`."""
    return context.path(f"{CACHE_BASELINES}/{digest([fingerprint, encode(inputs)])}")


def take_baseline(entry: Path, folder: Path) -> Finished | None:
    """Return what an entry says, its files handed to ``folder``; ``None`` if there is no entry, or a damaged one."""
    seal = verify_seal(entry)
    if seal is None:
        if entry.exists():
            print(f"baseline: {entry.name} in the cache is damaged: it is measured again")
        return None
    for name in seal.files:
        if name != _FINISHED:
            copy_or_link_file(entry / name, folder / name)
    told = json.loads((entry / _FINISHED).read_bytes())
    message = f"the same as run {told['run']}: {told['message']}"
    warnings = tuple(told.get("warnings", ()))  # an entry of an earlier release has none
    return Finished(told["outputs"], told["metrics"], message=message, warnings=warnings, reused=True, depends_on=None)


def keep_baseline(context: Context, entry: Path, finished: Finished, files: Sequence[Path]) -> None:
    """Put a measurement and its files into the cache, for other runs."""
    told = {
        "run": context.document.run.name, "outputs": encode(finished.outputs), "metrics": finished.metrics,
        "message": finished.message, "warnings": finished.warnings,
    }  # fmt: skip
    with work_folder(context) as folder:
        made = folder / "baseline"
        for file in files:
            copy_or_link_file(file, made / file.name)
        write_file(made / _FINISHED, json.dumps(told, allow_nan=False).encode())
        seal_directory(made)
        store_entry(made, entry)
