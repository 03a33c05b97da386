"""Values that the engine, the mode or the hardware cannot honor.

Such a *default* is replaced and listed with the reason in ``status.resolved.adapted``. The same value *set by the user* is rejected: a
run never silently does something else than its spec states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from finetune_contract.uris import HubId, UriKind, parse_uri

from .images import CUDA
from .paths import Json, lookup
from .settings import Settings


@dataclass(frozen=True)
class Adaptation:
    """One value that cannot be honored everywhere.

    Attributes:
        path: the field.
        impossible: whether a value is impossible with these settings and the values of the run that are known so far.
        instead: the replacement of a default (``None``: the field is removed).
        reason: why, in a few words.
        explicit: what happens to the same value set by a person: it is rejected, kept, or replaced as well.
    """

    path: str
    impossible: Callable[[Any, Settings, Json], bool]
    instead: Any
    reason: str
    explicit: Literal["reject", "keep", "replace"] = "reject"


def _local(settings: Settings) -> bool:
    return settings.mode == "local"


def _gpus(settings: Settings) -> int | None:
    return settings.machine.gpus if settings.machine else None


def _too_many_gpus(value: Any, settings: Settings, _spec: Json) -> bool:
    gpus = _gpus(settings)
    return gpus is not None and int(value) > gpus


def _hub_trains(spec: Json) -> bool:
    """Return whether the backends of Training Hub can train at all; whether the training image has them is known in the image only."""
    return lookup(spec, "training.algorithm") in ("sft", "osft") and bool(lookup(spec, "training.gpusPerWorker"))


def _is_portable(spec: Json) -> bool:
    """Return whether the engine is known before training: the training program chooses it, from what its image has."""
    return bool(lookup(spec, "training.engine") == "portable")


def _is_on_hub(spec: Json, field: str, kind: UriKind) -> bool:
    return isinstance(parse_uri(lookup(spec, field), kind), HubId)


def _processes(spec: Json) -> int:
    """Return the number of training processes in all pods together."""
    per_worker = lookup(spec, "training.processesPerWorker") or lookup(spec, "training.gpusPerWorker") or 1
    return int(lookup(spec, "training.workers") * per_worker)


_EVALUATION_ON_GPUS = f"evaluation{CUDA}"
ADAPTATIONS: tuple[Adaptation, ...] = (
    *(
        Adaptation(
            f"dataset.{field}",
            lambda _value, _settings, spec: not _is_on_hub(spec, "dataset.uri", "dataset"),
            None,
            "dataset.uri is not on the Hub",
            explicit="replace",  # a default for the runs with a Hub dataset; the CRD rejects it in the run itself
        )
        for field in ("split", "revision")
    ),
    Adaptation(
        "model.revision",
        lambda _value, _settings, spec: not _is_on_hub(spec, "model.uri", "model"),
        None,
        "model.uri is not on the Hub",
    ),
    Adaptation("training.gpusPerWorker", _too_many_gpus, 0, "this machine has fewer GPUs"),
    Adaptation(
        "training.engine",
        lambda value, _settings, spec: value == "auto" and not _hub_trains(spec),
        "portable",
        "training-hub trains sft and osft only, on GPUs",
        "replace",
    ),
    Adaptation(
        "training.engine",
        lambda value, _settings, spec: value == "training-hub" and not _hub_trains(spec),
        "portable",
        "training-hub trains sft and osft only, on GPUs",
    ),
    Adaptation(
        "training.liger",
        lambda value, _settings, spec: bool(value) and _is_portable(spec),
        False,
        "the portable engine does not use Liger kernels",
    ),
    Adaptation(
        "training.osft.memoryEfficientInit",
        lambda value, _settings, spec: not value and _is_portable(spec),
        True,
        "the portable engine always decomposes one weight at a time",
    ),
    Adaptation(
        "training.workers",
        lambda value, settings, _spec: _local(settings) and value > 1,
        1,
        "local mode runs on one machine",
        explicit="keep",
    ),
    Adaptation(  # one process has the complete model in any case
        "training.sft.sharding",
        lambda value, _settings, spec: value != "NO_SHARD" and _is_portable(spec) and _processes(spec) > 1,
        "NO_SHARD",
        "the portable engine keeps a complete copy of the model in each process",
    ),
    Adaptation(
        "training.lora.quantization",
        lambda value, _settings, spec: value != "none" and lookup(spec, "training.gpusPerWorker") == 0,
        "none",
        "quantized weights need a GPU, and training has none",
    ),
    Adaptation("evaluation.gpus", _too_many_gpus, 0, "this machine has fewer GPUs"),
    Adaptation(
        "evaluation.gpus",
        lambda value, settings, _spec: value > 0 and _EVALUATION_ON_GPUS not in settings.images,
        0,
        f"the operator's configuration sets images.evaluation and not images.{_EVALUATION_ON_GPUS}",
    ),
    Adaptation(
        "training.gradientCheckpointing",
        lambda value, settings, _spec: bool(value) and _gpus(settings) == 0,
        False,
        "without a GPU it costs time and saves no scarce memory",
        explicit="keep",
    ),
    Adaptation(
        "training.resources",
        lambda _value, settings, _spec: _local(settings),
        None,
        "the preset is for nodes of a cluster; local mode checks the need of the model",
        explicit="keep",
    ),
    Adaptation(
        "training.sharedMemory",
        lambda _value, settings, _spec: _local(settings),
        None,
        "local processes use /dev/shm of the machine",
        explicit="keep",
    ),
    Adaptation(
        "evaluation.backend", lambda value, *_: value == "auto", "hf", "auto selects the backend of this release", "replace"
    ),
)
