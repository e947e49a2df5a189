"""How many rows a forward pass without gradients may hold, so that scoring never needs more memory than training.

The largest tensor of an evaluation is that of the logits, tokens x vocabulary numbers, with a copy or two of it. A
training step holds the same for `per_device_train_batch_size` rows of the length of the longest training row, with
their gradients, so a pass of scoring may have as many logits as that. FLOOR allows small passes more: 8 million numbers
are 32 MB, which no model notices. `score.batch_size` is the upper limit, one row the lower.

Shape suffixes: B batch, T tokens, V vocabulary or classes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.distributed.tensor import DTensor

FLOOR = 2**23
"""Logits of a pass that is always allowed."""
Result = TypeVar("Result")


@dataclass(kw_only=True, slots=True)
class PassLimit:
    """The size of the passes of one trial; smaller after each out-of-memory error."""

    rows: int
    """B, at most: score.batch_size."""
    logits: int
    """B x T x V, at most."""
    width: int
    """V: the numbers of a token's logits."""
    chunked_loss: bool = True
    """Whether the loss of many positions is computed in chunks (train.chunked_loss)."""
    halved: bool = False
    """Whether a pass ran out of memory."""

    def rows_of(self, tokens: int) -> int:
        """The rows of a pass whose longest row has so many tokens of which the logits are computed; at least 1."""
        return max(1, min(self.rows, self.logits // max(1, tokens * self.width)))

    def halve(self, *, rows: int, tokens: int | None) -> None:
        """Half of a pass that did not fit; said in the trial's log. `tokens`: of its longest row, where it is known."""
        self.rows, self.halved = max(1, rows // 2), True
        if tokens is not None:
            self.logits = max(1, rows * tokens * self.width // 2)
        length = f" of up to {tokens} tokens" if tokens is not None else ""
        line = f"out of memory while scoring {rows} rows{length}: from now on {self.rows} at once"
        # The program's own error stream: lm-eval's output is discarded while it scores.
        print(line, file=sys.__stderr__, flush=True)


def pass_limit(
    model: torch.nn.Module,
    *,
    batch_size: int,
    train_rows: int,
    train_tokens: int,
    chunked_loss: bool = True,
) -> PassLimit:
    """The limit of a trial's scoring.

    `batch_size`: score.batch_size. `train_rows`, `train_tokens`: the rows of a forward pass of training on one rank,
    and the tokens of the longest training row.
    """
    width = logit_width(model)
    logits = max(FLOOR, train_rows * train_tokens * width)
    return PassLimit(rows=batch_size, logits=logits, width=width, chunked_loss=chunked_loss)


def logit_width(model: torch.nn.Module) -> int:
    """The numbers of a token's logits: the vocabulary of a language model, the classes of a classification."""
    config = model.config
    if getattr(model, "get_output_embeddings", lambda: None)() is None:
        return int(config.num_labels)
    return int(config.get_text_config().vocab_size)


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether some of the weights are on other ranks."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def split_rows(lengths: Sequence[int], *, limit: PassLimit, world_size: int) -> list[list[int]]:
    """Positions of rows of non-decreasing `lengths`, in groups of which every rank takes an equal part as one pass.

    The groups depend on the lengths and the limit only, so all ranks make the same number of passes, as the collectives
    of a sharded model require.
    """
    groups: list[list[int]] = []
    for position, tokens in enumerate(lengths):
        if not groups or len(groups[-1]) >= world_size * limit.rows_of(tokens):
            groups.append([])
        groups[-1].append(position)
    return groups


def without_out_of_memory(compute: Callable[[], Result], *, may_retry: bool) -> Result | None:
    """The result, or None after an out-of-memory error whose memory is free again.

    `may_retry`: False raises the error, for one row, and for a sharded model: the other ranks wait in its collectives.
    """
    try:
        return compute()
    except torch.OutOfMemoryError:
        if not may_retry:
            raise
    # Outside the handler: the error's frames hold the tensors.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
