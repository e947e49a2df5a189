"""lm-eval's Hugging Face model, with its requests distributed over the ranks of a trial.

On every rank lm-eval sees a single process (`world_size` 1), so that its evaluator and its numbers stay the same; only
the three methods that answer requests are distributed. Where the base model is sharded, every forward pass is a
collective: ranks with fewer or shorter requests make additional passes until all ranks are done.

A signal takes effect before the next forward pass.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import TypeVar, cast

import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from peft import PeftModel

from hpotune.finetune.distributed.ranks import Ranks
from hpotune.finetune.training.pass_limit import PassLimit, is_sharded, without_out_of_memory
from hpotune.finetune.trial_errors import Paused

Answer = TypeVar("Answer")
TokenRequest = tuple[tuple[str, str] | None, list[int], list[int]]
"""The texts of a request (None for a window of a long text), and the token ids of its context and continuation."""


class ForwardSync:
    """Makes all ranks do the same number of forward passes of the base model, as a sharded one requires.

    Before each pass the ranks count those with work and those with a signal; after a signal all raise Paused at the
    same count.
    """

    def __init__(self, base: torch.nn.Module, ranks: Ranks, stop_requested: Callable[[], bool]) -> None:
        self.base = base
        self.ranks = ranks
        self.stop_requested = stop_requested
        self.joining = False
        self.counts: torch.Tensor | None = None
        # Before all other hooks, so that on every rank the count precedes the collectives of the pass itself.
        self.handle = self.base.register_forward_pre_hook(self._before_forward, prepend=True)

    def _before_forward(self, *_: object) -> None:
        if not self.joining:
            self._count_working_ranks(True)

    def _count_working_ranks(self, working: bool) -> torch.Tensor:
        """The number of ranks with work of their own, as a scalar tensor: only reading its value waits for the ranks.

        Raises: Paused if the previous count included a signal: that count has completed on every rank.
        """
        if self.counts is not None and self.counts[1].item():
            raise Paused
        counts = torch.tensor([int(working), int(self.stop_requested())], device=self.ranks.device)
        self.counts = self.ranks.all_reduce_sum(counts)
        return self.counts[0]

    def join_until_done(self) -> None:
        """Make passes for the other ranks' sake until no rank has work left."""
        self.joining = True
        token = torch.zeros((1, 1), dtype=torch.long, device=self.ranks.device)
        with torch.no_grad():
            while self._count_working_ranks(False).item():
                self.base(input_ids=token, use_cache=False)
        self.joining = False


class DistributedLM(HFLM):  # type: ignore[misc]
    """The model in memory, with its adapter, as lm-eval's model on all ranks."""

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: transformers.PreTrainedTokenizerBase,
        *,
        limit: PassLimit,
        ranks: Ranks,
        stop_requested: Callable[[], bool] = lambda: False,
    ) -> None:
        # Not the model itself: lm-eval would call its tie_weights(), which replaces a trained embedding or head.
        facts = SimpleNamespace(config=model.config, device=model.device)
        super().__init__(pretrained=facts, tokenizer=tokenizer, batch_size=limit.rows)
        self._model = self.pretrained = model.eval()
        self.batch_size_per_gpu: int | str  # of lm-eval's class
        self.limit = limit
        self.pass_start, self.pass_rows = 0, 0
        self.pass_tokens: int | None = None
        self.ranks = ranks
        self.stop_requested = stop_requested
        # The base model, which is the sharded module: peft's generate calls it directly, past the outer module.
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        sync = ranks.world_size > 1 and is_sharded(model)
        self.forward_sync = ForwardSync(base, ranks, stop_requested) if sync else None
        self.handle = (
            self.forward_sync.handle
            if self.forward_sync
            else base.register_forward_pre_hook(self._pause_if_requested)
        )

    def remove_hook(self) -> None:
        """Remove the hook from the model."""
        self.handle.remove()

    def _pause_if_requested(self, *_: object) -> None:
        if self.stop_requested():
            raise Paused

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        return self._answer_distributed(super().loglikelihood, requests)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        return self._answer_distributed(super().loglikelihood_rolling, requests)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        return self._answer_distributed(super().generate_until, requests)

    def _model_generate(self, *args: object, **kwargs: object) -> torch.Tensor:
        # With synced_gpus transformers pairs the generate calls of the ranks, which have different batches or none.
        return super()._model_generate(*args, **kwargs, synced_gpus=False)

    def _loglikelihood_tokens(
        self, requests: Sequence[TokenRequest], disable_tqdm: bool = True, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        self.batch_size_per_gpu = "auto"  # makes lm-eval ask `_batch_scheduler` for the size of each pass
        try:
            return cast(
                "list[tuple[float, bool]]", super()._loglikelihood_tokens(requests, disable_tqdm=True)
            )
        finally:
            self.batch_size_per_gpu = self.limit.rows

    def _batch_scheduler(self, pos: int, requests: Sequence[TokenRequest]) -> int:
        """The rows of the pass that holds the request at `pos`; lm-eval has sorted the longest to the front."""
        if pos == 0 or pos >= self.pass_start + self.pass_rows:
            _, context, continuation = requests[pos]
            tokens = min(len(context) + len(continuation) - 1, self.max_length)
            self.pass_start, self.pass_rows, self.pass_tokens = pos, self.limit.rows_of(tokens), tokens
        return self.pass_rows

    def _answer_or_halve(
        self, method: Callable[..., list[Answer]], requests: Sequence[Instance]
    ) -> list[Answer]:
        """The answers; after an out-of-memory error all of them again, with passes of half the size."""
        while True:
            self.pass_start, self.pass_rows, self.pass_tokens = 0, self.limit.rows, None
            answers = without_out_of_memory(
                partial(method, requests, disable_tqdm=True),
                may_retry=self.forward_sync is None and self.limit.rows > 1,
            )
            if answers is not None:
                return answers
            self.limit.halve(rows=self.pass_rows, tokens=self.pass_tokens)
            self.batch_size_per_gpu = self.limit.rows

    def _answer_distributed(
        self, method: Callable[..., list[Answer]], requests: Sequence[Instance]
    ) -> list[Answer]:
        indices = assign_requests(requests, self.ranks.world_size)[self.ranks.rank]
        own: list[tuple[int, Answer]] | None
        try:
            answers = self._answer_or_halve(method, [requests[i] for i in indices]) if indices else []
            if self.forward_sync is not None:
                self.forward_sync.join_until_done()
            own = list(zip(indices, answers, strict=True))
        except Paused:
            own = None  # the other ranks wait in the gather
        parts = self.ranks.all_gather_object(own)
        if None in parts:
            raise Paused
        answer_of = dict(pair for part in parts for pair in part or [])
        return [answer_of[i] for i in range(len(requests))]


def assign_requests(requests: Sequence[Instance], world_size: int) -> list[list[int]]:
    """The indices into `requests` for each rank: longest items first, each to the rank with the least work so far.

    The requests of one item stay together: lm-eval answers one-token choices of a context in a single pass.
    """
    items: dict[tuple[str, int], list[int]] = {}
    for index, request in enumerate(requests):
        items.setdefault((request.task_name, request.doc_id), []).append(index)
    costs = [(sum(_length(requests[i]) for i in indices), indices) for indices in items.values()]
    loads = [(0, rank) for rank in range(world_size)]
    assigned: list[list[int]] = [[] for _ in loads]
    for cost, indices in sorted(costs, key=lambda pair: -pair[0]):
        load, rank = heapq.heappop(loads)
        assigned[rank] += indices
        heapq.heappush(loads, (load + cost, rank))
    return [sorted(indices) for indices in assigned]


def _length(request: Instance) -> int:
    return sum(len(part) for part in request.args if isinstance(part, str))
