"""Which rows a step trains on: a pure function of (seed, step), the same for any number of ranks.

Nothing here has a position that a checkpoint would have to keep.
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
    """The order of the training rows: one permutation an epoch, cut into global batches."""

    rows: int
    global_batch: int
    """Rows a step, over all ranks."""
    seed: int
    drop_last: bool = False
    """Leaves out the smaller last batch of an epoch."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch; 0 where drop_last leaves nothing."""
        whole = self.rows / self.global_batch
        return math.floor(whole) if self.drop_last else math.ceil(whole)

    def at(self, step: int) -> list[int]:
        """The rows of the global batch of `step` (from 0)."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.global_batch
        return [int(row) for row in _order(self.rows, self.seed, epoch)[start : start + self.global_batch]]


def share(batch: Sequence[int], *, rank: int, world_size: int, micro_batch: int) -> list[list[int]]:
    """This rank's micro-batches of a global batch; every rank gets equally many.

    Sharded forwards are collectives, so a rank without rows takes part too: its micro-batch is empty.
    """
    mine = list(batch[rank::world_size])
    rounds = math.ceil(math.ceil(len(batch) / world_size) / micro_batch)
    return [mine[k * micro_batch : (k + 1) * micro_batch] for k in range(rounds)]


@lru_cache(maxsize=2)
def _order(rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(rows)
