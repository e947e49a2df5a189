"""lm-eval's Hugging Face model, with its requests dealt out to the ranks of a trial.

lm-eval believes in one process (`world_size` 1) on every rank, so that its evaluator and its numbers stay as
they are; only the three methods that answer requests are shared. Where the base is sharded every forward pass
is a collective: ranks with fewer or shorter requests join with passes of their own until all are done.

A signal is heeded before the next forward pass.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from peft import PeftModel
from torch.distributed.tensor import DTensor

from hpotune.config.schema.study_config import Json
from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.trial_errors import Paused

Answer = TypeVar("Answer")


class Lockstep:
    """Makes all ranks do the same number of forward passes of the base; needed where it is sharded.

    Before each of them the ranks count who works and who was told to stop; all raise Paused at the same count.
    """

    def __init__(self, base: torch.nn.Module, ranks: Ranks, stop: Callable[[], bool]) -> None:
        self.base = base
        self.ranks = ranks
        self.stop = stop
        self.joining = False
        self.counts: torch.Tensor | None = None
        # The first of all hooks, so that on every rank the count comes before the pass's own collectives.
        self.handle = self.base.register_forward_pre_hook(self._announce, prepend=True)

    def _announce(self, *_: Json) -> None:
        if not self.joining:
            self._working(True)

    def _working(self, flag: bool) -> torch.Tensor:
        """How many ranks have a pass of their own to do now; a tensor, for only reading it waits.

        Raises: Paused where the count before this one held a signal: that one has arrived, on every rank.
        """
        if self.counts is not None and self.counts[1].item():
            raise Paused
        counts = torch.tensor([int(flag), int(self.stop())], device=self.ranks.device)
        self.counts = self.ranks.sum(counts)
        return self.counts[0]

    def finish(self) -> None:
        """Returns when every rank has come here; until then this one's passes are for the others' sake."""
        self.joining = True
        token = torch.zeros((1, 1), dtype=torch.long, device=self.ranks.device)
        with torch.no_grad():
            while self._working(False).item():
                self.base(input_ids=token, use_cache=False)
        self.joining = False


class SharedLM(HFLM):  # type: ignore[misc]
    """The model in memory, adapter and all, on as many ranks as there are."""

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Json,
        *,
        batch_size: int,
        ranks: Ranks,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
        self.ranks = ranks
        self.stop = stop
        # The base, where the sharding stands: an adapter's generate enters there, past the outer module.
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        together = ranks.world_size > 1 and is_sharded(model)
        self.lockstep = Lockstep(base, ranks, stop) if together else None
        self.handle = self.lockstep.handle if self.lockstep else base.register_forward_pre_hook(self._heed)

    def release(self) -> None:
        """Takes the hook off the model."""
        self.handle.remove()

    def _heed(self, *_: Json) -> None:
        if self.stop():
            raise Paused

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return self._shared(super().loglikelihood, requests)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        return self._shared(super().loglikelihood_rolling, requests)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        return self._shared(super().generate_until, requests)

    def _model_generate(self, *args: Json, **kwargs: Json) -> torch.Tensor:
        # transformers would pair each rank's call with one of its peers', which have other batches or none.
        return super()._model_generate(*args, **kwargs, synced_gpus=False)

    def _shared(self, method: Callable[..., list[Answer]], requests: Sequence[Instance]) -> list[Answer]:
        hand = deal(requests, self.ranks.world_size)[self.ranks.rank]
        own: list[tuple[int, Answer]] | None
        try:
            answers = method([requests[i] for i in hand], disable_tqdm=True) if hand else []
            if self.lockstep is not None:
                self.lockstep.finish()
            own = list(zip(hand, answers, strict=True))
        except Paused:
            own = None  # the other ranks wait in the gather
        parts = self.ranks.gather(own)
        if None in parts:
            raise Paused
        together = dict(pair for part in parts for pair in part or [])
        return [together[i] for i in range(len(requests))]


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether a part of the weights lies on other ranks."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def deal(requests: Sequence[Instance], world_size: int) -> list[list[int]]:
    """Places in `requests` for each rank: long items first, each to the rank with the least to do so far.

    The requests of one item stay together: lm-eval answers one-token choices of a context in a single pass.
    """
    items: dict[tuple[str, int], list[int]] = {}
    for place, request in enumerate(requests):
        items.setdefault((request.task_name, request.doc_id), []).append(place)
    costs = [(sum(_length(requests[place]) for place in places), places) for places in items.values()]
    loads = [(0, rank) for rank in range(world_size)]
    hands: list[list[int]] = [[] for _ in loads]
    for cost, places in sorted(costs, key=lambda pair: -pair[0]):
        load, rank = heapq.heappop(loads)
        hands[rank] += places
        heapq.heappush(loads, (load + cost, rank))
    return [sorted(hand) for hand in hands]


def _length(request: Instance) -> int:
    return sum(len(part) for part in request.args if isinstance(part, str))
