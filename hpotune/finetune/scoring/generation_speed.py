"""How fast a trial generated the answers of its generate_until tasks: `sequences_per_second`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from hpotune.finetune.distributed.ranks import Ranks

METRIC = "sequences_per_second"
WARM_UP_TOKENS = 2
"""Tokens of one answer that are generated before the first one that counts: the first pass of a process is slow."""


@dataclass(kw_only=True, slots=True)
class GenerationSpeed:
    """The answers of one rank, and the seconds in transformers' generate."""

    clock: Callable[[], float] = time.perf_counter
    sequences: int = 0
    seconds: float = 0.0
    warm: bool = False
    """Whether the warm-up is over."""

    @contextmanager
    def measured(self, sequences: int, device: torch.device) -> Iterator[None]:
        """A block that generates so many answers; counted once it has ended without an error."""
        start = self.clock()
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        self.seconds += self.clock() - start
        self.sequences += sequences

    @contextmanager
    def only_if_complete(self) -> Iterator[None]:
        """A block whose answers do not count if it raises: they will be generated again."""
        before = self.sequences, self.seconds
        try:
            yield
        except BaseException:
            self.sequences, self.seconds = before
            raise

    def over_all(self, ranks: Ranks) -> float | None:
        """Answers of all ranks per second of the rank that took longest; None without answers. A collective."""
        found = ranks.all_gather_object((self.sequences, self.seconds))
        sequences, seconds = sum(one for one, _ in found), max(took for _, took in found)
        return sequences / seconds if sequences and seconds > 0 else None
