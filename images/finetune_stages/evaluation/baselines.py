"""Cache of base models' scores, which all runs of the volume share.

It is separate from ``cache/results`` (see :mod:`finetune_stages.sdk.reuse`), because a baseline does not depend on the training rows or
the image, which are part of its inputs' digest. An entry is kept when the run that measured it is deleted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune_contract.codec import digest, encode
from finetune_contract.documents import EvaluationInputs, Scalar
from finetune_contract.workspace import CACHE_BASELINES
from finetune_stages.sdk import Context, Finished, seal_directory, verify_seal, write_file
from finetune_stages.sdk.safe_files import RESULT_FILE_LIMIT, read_bounded
from finetune_stages.sdk.workspace import copy_or_link_file
from finetune_stages.sources.cache import store_entry
from finetune_stages.sources.work_folder import work_folder

_FINISHED = "finished.json"


def baseline_entry(context: Context, inputs: EvaluationInputs, fingerprint: Mapping[str, Scalar]) -> Path:
    """Return the path of the cache entry for these inputs. ``fingerprint``: see :func:`.questions.fingerprint_of`."""
    return context.path(f"{CACHE_BASELINES}/{digest([fingerprint, encode(inputs)])}")


def take_baseline(entry: Path, folder: Path) -> Finished | None:
    """Return the result in an entry and link its files into ``folder``; ``None`` if the entry is missing or damaged."""
    seal = verify_seal(entry)
    if seal is None:
        if entry.exists():
            print(f"baseline: {entry.name} in the cache is damaged: the model is measured again")
        return None
    for name in seal.files:
        if name != _FINISHED:
            copy_or_link_file(entry / name, folder / name)
    stored = json.loads(read_bounded(entry / _FINISHED, RESULT_FILE_LIMIT))
    message = f"the same as run {stored['run']}: {stored['message']}"
    warnings = tuple(stored.get("warnings", ()))  # an entry of an earlier release has none
    return Finished(stored["outputs"], stored["metrics"], message=message, warnings=warnings, reused=True, fingerprint=None)


def keep_baseline(context: Context, entry: Path, finished: Finished, files: Sequence[Path]) -> None:
    """Store a result and its files in the cache."""
    stored = {
        "run": context.document.run.name, "outputs": encode(finished.outputs), "metrics": finished.metrics,
        "message": finished.message, "warnings": finished.warnings,
    }  # fmt: skip
    with work_folder(context) as folder:
        made = folder / "baseline"
        for file in files:
            copy_or_link_file(file, made / file.name)
        write_file(made / _FINISHED, json.dumps(stored, allow_nan=False).encode())
        seal_directory(made)
        store_entry(made, entry)
