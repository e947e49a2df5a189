"""The rows of each training step: a pure function of (seed, step), the same for any number of ranks.

Nothing here has a state that a checkpoint would have to save.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Batches:
    """The order of the training rows: one permutation per epoch, split into global batches."""

    rows: int
    global_batch: int
    """Rows per step, over all ranks."""
    seed: int
    drop_last: bool = False
    """Whether the smaller last batch of an epoch is left out."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch; 0 if drop_last leaves no batch."""
        batches = self.rows / self.global_batch
        return math.floor(batches) if self.drop_last else math.ceil(batches)

    def rows_at(self, step: int) -> list[int]:
        """The indices of the rows of the global batch of `step` (from 0)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.global_batch
        return [
            int(row) for row in _epoch_order(self.rows, self.seed, epoch)[start : start + self.global_batch]
        ]


def rank_micro_batches(
    batch: Sequence[int], *, rank: int, world_size: int, micro_batch: int
) -> list[list[int]]:
    """The micro-batches of a rank; every rank gets the same number, some of them empty.

    A forward pass of a sharded model is a collective, so a rank without rows must make one too.
    """
    own = list(batch[rank::world_size])
    rounds = math.ceil(math.ceil(len(batch) / world_size) / micro_batch)
    return [own[k * micro_batch : (k + 1) * micro_batch] for k in range(rounds)]


@lru_cache(maxsize=2)
def _epoch_order(rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(rows)
