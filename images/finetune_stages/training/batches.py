"""Which rows go into which forward pass: the same plan on every process, every row exactly once an epoch.

An optimizer step takes ``effective`` rows (the last one of an epoch takes what is left). The loss is summed over a whole step and
divided by its labels, so how a step is cut changes nothing but the rounding. There are two ways to cut it:

- :class:`BatchPlan` sorts the rows by length and deals them out: rows of like length meet in a micro-batch, which saves padding,
  and each process gets its share of long and short ones;
- :class:`PackedPlan` puts several rows into one sequence (first-fit decreasing), so that there is hardly any padding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

Batch = list[int]
"""Rows of a micro-batch, padded to the longest."""
Packed = list[list[int]]
"""Sequences of a micro-batch, each the rows that are in it."""


@dataclass
class Plan(Sampler[Any], ABC):  # type: ignore[misc]
    """This process's micro-batches, as a batch sampler: each iteration is the next epoch.

    Attributes:
        lengths: tokens of each row.
        effective: rows of an optimizer step, over all processes.
        micro: rows, or sequences of packed rows, of a forward pass.
        world, rank: number of processes, and of this one.
        filler: index of the row without labels that stands in where a process has nothing left in a step, so that all processes
            take part in its collective operations.
    """

    lengths: NDArray[np.int64]
    effective: int
    micro: int
    world: int
    rank: int
    seed: int
    filler: int
    epoch: int = field(default=0, init=False)

    @property
    @abstractmethod
    def accumulation(self) -> int:
        """Forward passes of one process in a step."""

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-len(self.lengths) // self.effective)

    def epoch_rows(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the rows of each step of an epoch."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths))
        return [order[start : start + self.effective] for start in range(0, len(order), self.effective)]

    def tokens_after_steps(self, epochs: int) -> NDArray[np.int64]:
        """Tokens that all processes have seen after each step of a training of that many epochs."""
        steps = [self.lengths[rows].sum() for epoch in range(epochs) for rows in self.epoch_rows(epoch)]
        return np.cumsum(steps, dtype=np.int64)


class BatchPlan(Plan):
    """Rows of like length together; a micro-batch is a list of rows."""

    @property
    def accumulation(self) -> int:
        """Forward passes of one process in a step."""
        return self.effective // (self.micro * self.world)

    def __len__(self) -> int:
        """Forward passes of one process in an epoch."""
        left = len(self.lengths) - (self.steps - 1) * self.effective
        return (self.steps - 1) * self.accumulation + -(-left // (self.micro * self.world))

    def __iter__(self) -> Iterator[Batch]:
        for rows in self.epoch_rows(self.epoch):
            longest_first = rows[np.argsort(-self.lengths[rows], kind="stable")]
            for start in range(0, len(rows), self.micro * self.world):
                share = longest_first[start : start + self.micro * self.world][self.rank :: self.world]
                yield share.tolist() or [self.filler]
        self.epoch += 1


@dataclass
class PackedPlan(Plan):
    """Several rows in a sequence; a micro-batch is a list of sequences, each a list of rows.

    A step has ``effective`` rows as without packing, however many sequences they fill. All steps have as many forward passes as
    the one with the most sequences needs, because transformers counts its steps in them; what is too many is a single token.

    Attributes:
        capacity: tokens of a sequence.
        epochs: epochs of the training, for the largest number of sequences of a step.
    """

    capacity: int
    epochs: int

    def __post_init__(self) -> None:
        share = -(-self.most // self.world)
        self.micro = -(-share // -(-share // self.micro))  # no more than it takes for as many passes

    @cached_property
    def most(self) -> int:
        """Sequences of the step that has most of them."""
        steps = (rows for epoch in range(self.epochs) for rows in self.epoch_rows(epoch))
        return max(len(pack(rows, self.lengths, self.capacity)) for rows in steps)

    @property
    def accumulation(self) -> int:
        """Forward passes of one process in a step."""
        return -(-self.most // (self.micro * self.world))

    def __len__(self) -> int:
        """Forward passes of one process in an epoch."""
        return self.steps * self.accumulation

    def __iter__(self) -> Iterator[Packed]:
        for rows in self.epoch_rows(self.epoch):
            sequences = pack(rows, self.lengths, self.capacity)
            for number in range(self.accumulation):
                start = number * self.micro * self.world
                yield sequences[start : start + self.micro * self.world][self.rank :: self.world] or [[self.filler]]
        self.epoch += 1


def pack(rows: NDArray[np.int64], lengths: NDArray[np.int64], capacity: int) -> Packed:
    """Return rows into as few sequences of ``capacity`` tokens as first-fit decreasing finds, the fullest first.

    It needs at most 11/9 of the fewest possible, and one more (Johnson 1973).
    """
    sequences: Packed = []
    room: list[int] = []
    for row in rows[np.argsort(-lengths[rows], kind="stable")].tolist():
        length = int(lengths[row])
        place = next((index for index, left in enumerate(room) if left >= length), len(room))
        if place == len(room):
            sequences.append([])
            room.append(capacity)
        sequences[place].append(row)
        room[place] -= length
    return [sequences[index] for index in np.argsort(room, kind="stable")]
