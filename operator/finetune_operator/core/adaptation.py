"""Values that a place cannot honour.

A *default* that engine, mode or hardware cannot honour is replaced, and listed with the reason in ``status.resolved.adapted``;
the same value *written by the user* is refused: nobody gets something else than they asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .paths import Json, lookup
from .settings import Settings


@dataclass(frozen=True)
class Adaptation:
    """One value that some places cannot honour.

    Attributes:
        path: the field.
        impossible: whether this value is impossible under these settings, with the run's other values as they are by now.
        instead: what takes the place of a default (``None``: the field is left out).
        reason: why, in a few words.
        written: what becomes of the same value written by a person: refused; kept, and the place decides; replaced as well.
    """

    path: str
    impossible: Callable[[Any, Settings, Json], bool]
    instead: Any
    reason: str
    written: Literal["refuse", "keep", "replace"] = "refuse"


def _local(settings: Settings) -> bool:
    return settings.mode == "local"


def _gpus(settings: Settings) -> int | None:
    return settings.machine.gpus if settings.machine else None


def _too_many_gpus(value: Any, settings: Settings, _wish: Json) -> bool:
    gpus = _gpus(settings)
    return gpus is not None and int(value) > gpus


ADAPTATIONS: tuple[Adaptation, ...] = (
    Adaptation(
        "training.engine", lambda value, *_: value == "auto", "portable", "auto takes the engine that this release has", "replace"
    ),
    Adaptation("training.liger", lambda value, *_: bool(value), False, "the portable engine does not use Liger's kernels"),
    Adaptation(
        "training.sft.sharding",
        lambda value, *_: value != "NO_SHARD",
        "NO_SHARD",
        "the portable engine keeps a whole copy of the model in each process",
    ),
    Adaptation(
        "training.workers",
        lambda value, settings, _wish: _local(settings) and value > 1,
        1,
        "this is one machine",
        written="keep",
    ),
    Adaptation("training.gpusPerWorker", _too_many_gpus, 0, "this machine has fewer GPUs"),
    Adaptation(
        "training.lora.quantization",
        lambda value, _settings, spec: value != "none" and lookup(spec, "training.gpusPerWorker") == 0,
        "none",
        "quantised weights need a GPU, and training has none",
    ),
    Adaptation("evaluation.gpus", _too_many_gpus, 0, "this machine has fewer GPUs"),
    Adaptation(
        "training.gradientCheckpointing",
        lambda value, settings, _wish: bool(value) and _gpus(settings) == 0,
        False,
        "without a GPU it costs time and saves nothing that is short",
        written="keep",
    ),
    Adaptation(
        "training.resources",
        lambda _value, settings, _wish: _local(settings),
        None,
        "the preset is for a cluster's nodes; here the model's own need is checked",
        written="keep",
    ),
    Adaptation(
        "training.sharedMemory",
        lambda _value, settings, _wish: _local(settings),
        None,
        "processes of this machine use its own /dev/shm",
        written="keep",
    ),
    Adaptation(
        "evaluation.backend", lambda value, *_: value == "auto", "hf", "auto takes the backend that this release has", "replace"
    ),
)
