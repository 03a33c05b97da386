"""Which rows go into which forward pass: the same plan on every process, every row exactly once an epoch.

An optimizer step takes ``effective`` rows (the last one of an epoch takes what is left). They are sorted by length and dealt out:
rows of like length meet in a micro-batch, which saves padding, and each process gets its share of long and short ones. The loss
is summed over a whole step and divided by its labels, so how a step is cut changes nothing but the rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

Batch = list[int]


@dataclass
class BatchPlan(Sampler[Batch]):  # type: ignore[misc]
    """This process's micro-batches, as a batch sampler: each iteration is the next epoch.

    Attributes:
        lengths: tokens of each row.
        effective: rows of an optimizer step, over all processes.
        micro: rows of a forward pass.
        world, rank: number of processes, and of this one.
        filler: index of the row without labels that stands in where a process has no row left in an epoch's last step, so that
            all processes take part in its collective operations.
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
    def accumulation(self) -> int:
        """Forward passes of one process in a step."""
        return self.effective // (self.micro * self.world)

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return -(-len(self.lengths) // self.effective)

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

    def epoch_rows(self, epoch: int) -> list[NDArray[np.int64]]:
        """The rows of each step of an epoch."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths))
        return [order[start : start + self.effective] for start in range(0, len(order), self.effective)]

    def tokens_after_steps(self, epochs: int) -> NDArray[np.int64]:
        """Tokens that all processes have seen after each step of a training of that many epochs."""
        steps = [self.lengths[rows].sum() for epoch in range(epochs) for rows in self.epoch_rows(epoch)]
        return np.cumsum(steps, dtype=np.int64)
