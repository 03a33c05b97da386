"""Scores of base models that other runs of the volume measured: the same model is not asked the same questions twice."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path

from finetune_contract.codec import digest, encode
from finetune_contract.documents import EvaluationInputs
from finetune_contract.workspace import CACHE_BASELINES
from finetune_stages.kit import Context, Finished, Seal, seal_directory, verify_seal, write_file
from finetune_stages.kit.workspace import copy_or_link_file, file_sha256
from finetune_stages.sources.cache import keep_entry
from finetune_stages.sources.work_folder import work_folder

from .task_files import Definition, builtin_tasks

MEASURING = 1
"""Version of how is measured: a new one makes the entries of the old one useless, as they should be."""
_FINISHED = "finished.json"


def baseline_entry(context: Context, inputs: EvaluationInputs, model: Seal, definitions: Sequence[Definition]) -> Path | None:
    """Where the cache keeps the answers to these questions; ``None`` where they may change unseen.

    That is so for a user's own tasks, which read whatever data they name, and for everything but the base model; lm-eval's own
    benchmarks count as fixed. Numbers of a GPU and of a processor differ in their last digits and are kept apart.
    """
    builtin = builtin_tasks() if definitions else None
    own = any(builtin and not definition.path.is_relative_to(builtin) for definition in definitions)
    if inputs.subject != "base" or own:
        return None
    held_out = context.path(context.layout.eval_data)
    rows = file_sha256(held_out) if inputs.holdout and held_out.exists() else None
    gpu = any(Path("/dev").glob("nvidia[0-9]*"))
    key = digest([MEASURING, importlib.metadata.version("lm-eval"), gpu, model.digest, rows, encode(inputs)])
    return context.path(f"{CACHE_BASELINES}/{key}")


def take_baseline(entry: Path, folder: Path) -> Finished | None:
    """What an entry says, its files handed to ``folder``; ``None`` where there is no entry, or a damaged one."""
    seal = verify_seal(entry)
    if seal is None:
        return None
    for name in seal.files:
        if name != _FINISHED:
            copy_or_link_file(entry / name, folder / name)
    return Finished(**json.loads((entry / _FINISHED).read_bytes()), reused=True)


def keep_baseline(context: Context, entry: Path, finished: Finished, files: Sequence[Path]) -> None:
    """Put a measurement and its files into the cache, for other runs."""
    told = {"outputs": encode(finished.outputs), "metrics": finished.metrics, "message": finished.message}
    with work_folder(context) as folder:
        made = folder / "baseline"
        for file in files:
            copy_or_link_file(file, made / file.name)
        write_file(made / _FINISHED, json.dumps(told, allow_nan=False).encode())
        seal_directory(made)
        keep_entry(made, entry)
