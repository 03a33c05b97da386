"""Values that the engine, the mode or the hardware cannot honor.

Such a *default* is replaced and listed with the reason in ``status.resolved.adapted``. The same value *set by the user* is rejected: a
run never silently does something else than its spec states.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from finetune_contract.uris import HubId, UriKind, parse_uri

from .images import CUDA
from .paths import Json, lookup
from .settings import Settings

Explicit = Literal["reject", "reject in the run", "keep in the run", "keep", "replace"]


@dataclass(frozen=True)
class Adaptation:
    """One value that cannot be honored everywhere.

    Attributes:
        path: the field.
        impossible: whether a value is impossible with these settings and the values of the run that are known so far.
        instead: the replacement of a default (``None``: the field is removed).
        reason: why, in a few words.
        explicit: what happens to the same value set by a person: it is rejected, kept, or replaced as well. ``reject in the run``: as a
            default of the namespace or the operator it is replaced, because it is meant for the runs that can honor it. ``keep in the run``:
            the same, and :mod:`.contradictions` rejects the value of a run, with both fields.
    """

    path: str
    impossible: Callable[[Any, Settings, Json], bool]
    instead: Any
    reason: str
    explicit: Explicit = "reject"


def _local(settings: Settings) -> bool:
    return settings.mode == "local"


def _gpus(settings: Settings) -> int | None:
    return settings.machine.gpus if settings.machine else None


def _too_many_gpus(value: Any, settings: Settings, _spec: Json) -> bool:
    gpus = _gpus(settings)
    return gpus is not None and int(value) > gpus


def _algorithm(spec: Json) -> str:
    return str(lookup(spec, "training.algorithm"))


def _without_gpus(spec: Json) -> bool:
    return not lookup(spec, "training.gpusPerWorker")


def _is_hub(spec: Json, algorithm: str | None = None) -> bool:
    """Return whether the engine is certainly Training Hub; with ``algorithm``, for this algorithm."""
    return lookup(spec, "training.engine") == "training-hub" and algorithm in (None, _algorithm(spec))


def _is_portable(spec: Json) -> bool:
    """Return whether the engine is known before training: the training program chooses it, from what its image has."""
    return bool(lookup(spec, "training.engine") == "portable")


def _is_on_hub(spec: Json, field: str, kind: UriKind) -> bool:
    return isinstance(parse_uri(lookup(spec, field), kind), HubId)


def _processes(spec: Json) -> int:
    """Return the number of training processes in all pods together."""
    per_worker = lookup(spec, "training.processesPerWorker") or lookup(spec, "training.gpusPerWorker") or 1
    return int(lookup(spec, "training.workers") * per_worker)


def _engine_of_the_run() -> Iterator[Adaptation]:
    """Yield the rules for what Training Hub cannot train, whatever the training image has."""
    explicit: dict[str, Explicit] = {"auto": "replace", "training-hub": "reject in the run"}
    reasons: dict[str, Callable[[Json], bool]] = {
        "engine training-hub does not train lora": lambda spec: _algorithm(spec) == "lora",
        "engine training-hub requires GPUs, and training requests none": _without_gpus,
    }
    for stated, action in explicit.items():
        for reason, cannot in reasons.items():
            yield Adaptation("training.engine", partial(_is_wrong_engine, stated, cannot), "portable", reason, action)


def _is_wrong_engine(stated: str, cannot: Callable[[Json], bool], value: Any, _settings: Settings, spec: Json) -> bool:
    return bool(value == stated) and cannot(spec)


HUB_LIMITS: tuple[Adaptation, ...] = (
    Adaptation(
        "training.microBatchSize", lambda _value, _settings, spec: _is_hub(spec), None,
        "the backends of training-hub fill each micro-batch up to training.maxTokensPerGPU",
    ),
    Adaptation(
        "training.gradientCheckpointing", lambda value, _settings, spec: not value and _is_hub(spec), True,
        "the backends of training-hub always recompute activations",
    ),
    Adaptation(
        "training.scheduler", lambda value, _settings, spec: value != "cosine" and _is_hub(spec, "sft"), "cosine",
        "instructlab-training always uses cosine",
    ),
    Adaptation(
        "training.schedulerArgs", lambda value, _settings, spec: bool(value) and _is_hub(spec, "sft"), {},
        "instructlab-training takes none",
    ),
    Adaptation(
        "training.liger", lambda value, _settings, spec: bool(value) and _is_hub(spec, "sft"), False,
        "instructlab-training checks that Liger is installed and does not use it",
    ),
    Adaptation(
        "training.osft.unfreezeRankRatio", lambda value, _settings, spec: value in (0, 1) and _is_hub(spec, "osft"), 0.5,
        "mini-trainer takes 1 for 0.5, and trains one direction of each weight for 0",
    ),
    Adaptation(
        "training.osft.trainable", lambda value, _settings, spec: value == "targets" and _is_hub(spec, "osft"), "all",
        "mini-trainer trains embeddings, output layer and norms as well",
    ),
    Adaptation(
        "training.osft.targetPatterns",
        lambda value, _settings, spec: any(re.search(r"[,'\"\s]", pattern) for pattern in value) and _is_hub(spec, "osft"), None,
        "mini-trainer splits them at commas, quotes and blanks",
    ),
)  # fmt: skip
"""What no version of Training Hub's backends honors. The training image has further limits, those of its versions."""
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
        "dataset.nearDuplicates",
        lambda value, _settings, spec: value != "Ignore" and lookup(spec, "dataset.splitBy") == "stratified",
        "Ignore",
        "dataset.splitBy is stratified, which draws single rows",
        "keep in the run",
    ),
    Adaptation(
        "dataset.nearDuplicates",
        lambda value, _settings, spec: value != "Ignore" and bool(lookup(spec, "dataset.evalUri")),
        "Ignore",
        "dataset.evalUri has the held-out rows",
        "keep in the run",
    ),
    Adaptation(
        "model.revision",
        lambda _value, _settings, spec: not _is_on_hub(spec, "model.uri", "model"),
        None,
        "model.uri is not on the Hub",
    ),
    Adaptation("training.gpusPerWorker", _too_many_gpus, 0, "this machine has fewer GPUs"),
    *_engine_of_the_run(),
    Adaptation(
        "training.liger",
        lambda value, _settings, spec: bool(value) and _is_portable(spec),
        False,
        "the portable engine does not use Liger kernels",
        "reject in the run",
    ),
    *HUB_LIMITS,
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
