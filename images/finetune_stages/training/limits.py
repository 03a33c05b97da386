"""Values of a run that an engine cannot honor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from finetune_contract.documents import OsftInputs, TrainingInputs


@dataclass(frozen=True)
class Limit:
    """A value that an engine cannot honor. A default is replaced; a value that a person set is rejected.

    Attributes:
        field: name in the spec.
        value: as it is written there.
        reason: why, as a clause about the engine.
        only_speed: whether the value changes the speed and nothing else, so that the replacement of a default needs no warning.
        binding: whether a default cannot be replaced either.
    """

    field: str
    value: str
    reason: str
    only_speed: bool = False
    binding: bool = False


LIGER = "training.liger"


def portable_limits(inputs: TrainingInputs, processes: int) -> Iterator[Limit]:
    """Yield the values that the portable engine cannot honor with this number of processes."""
    if inputs.liger:
        yield Limit(LIGER, "true", "it does not use Liger kernels", only_speed=True)
    if inputs.sharding != "NO_SHARD" and processes > 1:  # one process has the complete model in any case
        yield Limit("training.sft.sharding", inputs.sharding, "it keeps a complete copy of the model in each process")
    if inputs.algorithm == "osft" and not (inputs.osft or OsftInputs()).memory_efficient_init:
        yield Limit("training.osft.memoryEfficientInit", "false", "it always decomposes one weight at a time")
