"""The engines of this image, and the choice between them: the program's first act, before it loads a model or a library."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from finetune_contract import reasons
from finetune_contract.documents import IMAGE_VARIABLE, TrainingInputs
from finetune_stages.sdk import StageError
from finetune_stages.sdk.gpus import requested_gpus
from finetune_stages.sdk.nvidia import driver

from .libraries import engine_versions, missing_package
from .limits import Limit, portable_limits
from .pretrained import Pretrained
from .training_hub.installed import BACKENDS, Installed, NotInstalled, installed
from .training_hub.limits import hub_limits

_FLASH_ATTENTION = (8, 0)
"""Lowest compute capability that flash-attn supports. mini-trainer uses it wherever it is installed."""
PORTABLE: Literal["portable"] = "portable"
HUB: Literal["training-hub"] = "training-hub"


@dataclass(frozen=True)
class Engine:
    """The engine of a training.

    Attributes:
        name: ``portable`` or ``training-hub``.
        reason: why it was chosen, as a clause.
        versions: versions of its packages.
        replaced: defaults that it cannot honor.
        installed: what the installed Training Hub accepts.
    """

    name: str
    reason: str
    versions: dict[str, str]
    replaced: tuple[Limit, ...] = ()
    installed: Installed | None = None

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for each default that has no effect."""
        return tuple(map(self._note, self.replaced))

    def warnings(self) -> tuple[str, ...]:
        """Return the sentences about defaults that change more than the speed."""
        return tuple(self._note(limit) for limit in self.replaced if not limit.only_speed)

    def _note(self, limit: Limit) -> str:
        return f"{limit.field}: the default {limit.value} has no effect with engine {self.name}: {limit.reason}."


@dataclass(frozen=True)
class Offer:
    """What this image offers for a training with one engine.

    Attributes:
        missing: what the image or the pod lacks, as a clause; ``None`` if nothing.
        limits: values that the engine cannot honor.
    """

    name: str
    missing: str | None = None
    limits: tuple[Limit, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    installed: Installed | None = None


def choose(
    inputs: TrainingInputs,
    explicit: Collection[str],
    processes: int = 1,
    model: Path | None = None,
    count_gpus: Callable[[], int] = requested_gpus,
) -> Engine:
    """Return the engine for a training: the requested one, or for ``auto`` Training Hub where it can honor the run, else the portable one.

    Args:
        inputs: the stage's inputs.
        explicit: fields that a person set.
        processes: number of processes in all pods together.
        model: folder of the base model, of which only the headers are read.
        count_gpus: returns the number of GPUs that the pod requests.

    Raises:
        StageError: ``EngineMissing``: the image lacks a package. ``BadTrainingValue``: the engine cannot honor a value that a person set.
    """
    made = list(offers(inputs, processes, model, count_gpus))
    for number, offer in enumerate(made):
        if offer.missing is None and not _rejected(offer, explicit):
            reason = _reason(inputs, made[:number], explicit)
            return Engine(offer.name, reason, offer.versions, offer.limits, offer.installed)
    raise _failure(inputs, made, explicit)


def offers(
    inputs: TrainingInputs, processes: int = 1, model: Path | None = None, count_gpus: Callable[[], int] = requested_gpus
) -> Iterator[Offer]:
    """Yield the offers of the requested engines, the preferred one first."""
    if inputs.engine in ("auto", HUB):
        yield _hub(inputs, model, count_gpus)
    if inputs.engine in ("auto", PORTABLE):
        yield Offer(PORTABLE, missing_package(inputs), tuple(portable_limits(inputs, processes)), engine_versions())


def _hub(inputs: TrainingInputs, model: Path | None, count_gpus: Callable[[], int]) -> Offer:
    if inputs.algorithm not in BACKENDS:
        # unsloth renders the rows itself, learns from the prompts as well, and writes no merged model.
        reason = "its backend learns from the prompts as well"
        return Offer(HUB, None, (Limit("training.algorithm", inputs.algorithm, reason, binding=True),))
    try:
        found = installed(inputs)
    except NotInstalled as error:
        return Offer(HUB, str(error))
    if inputs.algorithm == "osft" and "flash-attn" not in found.versions:
        return Offer(HUB, "it requires the Python package flash-attn, and the image does not have it")
    limits = (*_obstacles(inputs, model, count_gpus), *hub_limits(inputs, found))
    return Offer(HUB, None, limits, found.versions, found)


def _obstacles(inputs: TrainingInputs, model: Path | None, count_gpus: Callable[[], int]) -> Iterator[Limit]:
    """Yield what keeps Training Hub's backends from this training whatever the image has."""
    if not count_gpus():
        yield Limit("training.gpusPerWorker", "0", "its backends require an NVIDIA GPU", binding=True)
    elif inputs.algorithm == "osft" and (gpus := driver().gpus) and gpus[0].capability < _FLASH_ATTENTION:
        why = f"its backend mini-trainer uses flash-attn, which does not support {gpus[0].name}"
        yield Limit("training.algorithm", "osft", why, binding=True)
    if inputs.algorithm == "osft" and model is not None and _is_tied_in_32_bits(model):
        why = "its backend mini-trainer cannot write a model of 32 bits whose output layer is its embeddings"
        yield Limit("model.uri", "", why, binding=True)


def _is_tied_in_32_bits(model: Path) -> bool:
    """Return whether the weights have 32 bits and no output layer of their own; a model that cannot be read is reported later."""
    try:
        base = Pretrained.open(model)
    except StageError:
        return False
    return base.dtype == "F32" and not any(name.endswith("lm_head.weight") for name in base.tensors)


def _is_bound(offer: Offer) -> bool:
    return any(limit.binding for limit in offer.limits)


def _rejected(offer: Offer, explicit: Collection[str]) -> list[Limit]:
    return [limit for limit in offer.limits if limit.binding or _is_explicit(limit.field, explicit)]


def _is_explicit(field: str, explicit: Collection[str]) -> bool:
    """Return whether a person set the field, or a value in it: the fields of a map are listed one by one."""
    return any(f"{one}.".startswith(f"{field}.") for one in explicit)


def _reason(inputs: TrainingInputs, passed_over: list[Offer], explicit: Collection[str]) -> str:
    if inputs.engine != "auto":
        return "training.engine sets it" if _is_explicit("training.engine", explicit) else "no other engine can train this run"
    if not passed_over:
        return "the image has it and it honors the values of the run"
    return "; ".join(f"{offer.name} cannot be used: {_why_not(offer, explicit)}" for offer in passed_over)


def _why_not(offer: Offer, explicit: Collection[str]) -> str:
    if offer.missing is not None:
        return offer.missing
    limit = min(_rejected(offer, explicit), key=lambda limit: not limit.binding)
    return limit.reason if limit.binding else f"{limit.field} is {limit.value}, and {limit.reason}"


def _failure(inputs: TrainingInputs, made: list[Offer], explicit: Collection[str]) -> StageError:
    rejecting = [offer for offer in made if offer.missing is None and not (inputs.engine == "auto" and _is_bound(offer))]
    if rejecting and _is_bound(rejecting[0]):
        limit = _rejected(rejecting[0], explicit)[0]
        return StageError(
            reasons.BAD_TRAINING_VALUE,
            f"{limit.field}: engine {inputs.engine} cannot be used, because {limit.reason}; set training.engine to auto or portable.",
        )
    if rejecting:
        limit = _rejected(rejecting[0], explicit)[0]
        others = "".join(
            f"; engine {offer.name} cannot be used: {_why_not(offer, explicit)}" for offer in made if offer is not rejecting[0]
        )
        return StageError(
            reasons.BAD_TRAINING_VALUE,
            f"{limit.field}: engine {rejecting[0].name} cannot honor {limit.value}, because {limit.reason}{others}; remove it{_or_other_engine(inputs)}.",
        )
    image = os.environ.get(IMAGE_VARIABLE) or "the training image"
    lacks = "; ".join(f"engine {offer.name} cannot be used: {_why_not(offer, explicit)}" for offer in made)
    return StageError(reasons.ENGINE_MISSING, f"training.image: {image}: {lacks}; use another image{_or_other_engine(inputs)}.")


def _or_other_engine(inputs: TrainingInputs) -> str:
    other = {HUB: PORTABLE, PORTABLE: HUB}.get(inputs.engine)
    return f", or set training.engine to auto or {other}" if other else ""
