"""Batch plans: the assignment of rows to forward passes. Every process has the same plan, and each row occurs once per epoch.

An optimizer step takes ``effective`` rows (the last one of an epoch takes the rest). The loss is summed over a whole step and divided
by its labels, so that the division of a step affects only rounding. There are two divisions:

- :class:`BatchPlan` sorts the rows by length: rows of similar length are in one micro-batch, which saves padding, and each process
  gets long and short rows;
- :class:`PackedPlan` puts several rows into one sequence (first-fit decreasing), with almost no padding.
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
"""Sequences of a micro-batch, each a list of rows."""


@dataclass
class Plan(Sampler[Any], ABC):  # type: ignore[misc]
    """This process's micro-batches, as a batch sampler: each iteration is the next epoch.

    Attributes:
        lengths: tokens of each row.
        effective: rows per optimizer step, over all processes.
        micro: rows, or sequences of packed rows, per forward pass.
        world, rank: number of processes, and rank of this one.
        filler: index of a row without labels, for a process that has no rows left in a step but must take part in its collective
            operations.
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
        """Forward passes of one process per step."""

    @property
    def steps(self) -> int:
        """Optimizer steps per epoch."""
        return -(-len(self.lengths) // self.effective)

    def epoch_rows(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the rows of each step of an epoch."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths))
        return [order[start : start + self.effective] for start in range(0, len(order), self.effective)]

    def tokens_after_steps(self, epochs: int) -> NDArray[np.int64]:
        """Return the number of tokens processed by all processes after each step."""
        steps = [self.lengths[rows].sum() for epoch in range(epochs) for rows in self.epoch_rows(epoch)]
        return np.cumsum(steps, dtype=np.int64)


class BatchPlan(Plan):
    """Plan with rows of similar length together; a micro-batch is a list of rows."""

    @property
    def accumulation(self) -> int:
        """Forward passes of one process per step."""
        return self.effective // (self.micro * self.world)

    def __len__(self) -> int:
        """Forward passes of one process per epoch."""
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
    """Plan with several rows in a sequence; a micro-batch is a list of sequences, each a list of rows.

    A step has ``effective`` rows as without packing, in any number of sequences. All steps have the number of forward passes of the
    step with the most sequences, because transformers derives steps from them; a surplus pass is a single token.

    Attributes:
        capacity: tokens per sequence.
        epochs: epochs of the training, for the largest number of sequences of a step.
    """

    capacity: int
    epochs: int

    def __post_init__(self) -> None:
        share = -(-self.most // self.world)
        self.micro = -(-share // -(-share // self.micro))  # the smallest size with the same number of passes

    @cached_property
    def most(self) -> int:
        """Largest number of sequences of a step."""
        steps = (rows for epoch in range(self.epochs) for rows in self.epoch_rows(epoch))
        return max(len(pack(rows, self.lengths, self.capacity)) for rows in steps)

    @property
    def accumulation(self) -> int:
        """Forward passes of one process per step."""
        return -(-self.most // (self.micro * self.world))

    def __len__(self) -> int:
        """Forward passes of one process per epoch."""
        return self.steps * self.accumulation

    def __iter__(self) -> Iterator[Packed]:
        for rows in self.epoch_rows(self.epoch):
            sequences = pack(rows, self.lengths, self.capacity)
            for number in range(self.accumulation):
                start = number * self.micro * self.world
                yield sequences[start : start + self.micro * self.world][self.rank :: self.world] or [[self.filler]]
        self.epoch += 1


def pack(rows: NDArray[np.int64], lengths: NDArray[np.int64], capacity: int) -> Packed:
    """Pack rows into sequences of ``capacity`` tokens by first-fit decreasing, and return them with the fullest first.

    The result has at most 11/9 of the optimal number of sequences, plus one (Johnson 1973).
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
