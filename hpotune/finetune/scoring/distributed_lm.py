"""lm-eval's Hugging Face model, with its requests distributed over the ranks of a trial.

On every rank lm-eval sees a single process (`world_size` 1), so that its evaluator and its numbers stay the same; only
the three methods that answer requests are distributed. Where the base model is sharded, every forward pass is a
collective: ranks with fewer or shorter requests make additional passes until all ranks are done.

A signal takes effect before the next forward pass.

Requests with a shared context are answered by shared_context.py, others by lm-eval's own code.
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
from hpotune.finetune.progress_file import ProgressFile
from hpotune.finetune.scoring.answer_sampling import AnswerSeeds, RowSampler, random_numbers, sampled_by
from hpotune.finetune.scoring.generation_speed import WARM_UP_TOKENS, GenerationSpeed
from hpotune.finetune.scoring.request_tokens import KeptTokens, TokenRequest, token_requests
from hpotune.finetune.scoring.shared_context import NotShareable, SharedContext, differs, sample_of, unfit
from hpotune.finetune.scoring.shared_rows import clusters_of, items_of
from hpotune.finetune.training.pass_limit import PassLimit, is_sharded, without_out_of_memory
from hpotune.finetune.trial_errors import Paused

Answer = TypeVar("Answer")
Answered = tuple[float, bool]
"""The log-likelihood of a continuation, and whether it is the greedy one."""


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
        share_context: bool = True,
        stop_requested: Callable[[], bool] = lambda: False,
        progress: ProgressFile | None = None,
        kept_tokens: KeptTokens | None = None,
        seed: int = 0,
        speed: GenerationSpeed | None = None,
    ) -> None:
        # Not the model itself: lm-eval would call its tie_weights(), which replaces a trained embedding or head.
        facts = SimpleNamespace(config=model.config, device=model.device)
        super().__init__(pretrained=facts, tokenizer=tokenizer, batch_size=limit.rows)
        self._model = self.pretrained = model.eval()
        self.batch_size_per_gpu: int | str  # of lm-eval's class
        self.limit = limit
        self.kept_tokens = kept_tokens
        self.seed = seed
        """Of the random numbers of sampled answers."""
        self.speed = speed or GenerationSpeed()
        self.answer_seeds = AnswerSeeds([], seed=seed)
        """Of the requests that are being answered."""
        self.contexts: list[str] = []
        """The questions of the pass that is being made."""
        self.known: dict[int, object] = {}
        """Answers that were asked for in advance (`answer_in_advance`), by the identity of the request."""
        self.pass_start, self.pass_rows = 0, 0
        self.answered_before = 0
        """Requests that were answered before those of the running call of lm-eval's own code."""
        self.pass_tokens: int | None = None
        self.ranks = ranks
        self.stop_requested = stop_requested
        self.progress = progress or ProgressFile()
        self.why_not_shared = unfit(model) if share_context else "score.share_context is false"
        """Why contexts are forwarded once for each request; None: they are shared."""
        self.shared = SharedContext(model, device=self.device) if self.why_not_shared is None else None
        # The base model, which is the sharded module: peft's generate calls it directly, past the outer module.
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        self.base = base
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

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[Answered]:
        return self._answer_distributed(self._loglikelihood, requests)

    def _loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[Answered]:
        return self._loglikelihood_tokens(token_requests(self, requests, kept=self.kept_tokens))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        return self._answer_distributed(super().loglikelihood_rolling, requests)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        return self._answer_distributed(self._generate, requests)

    def _generate(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        self.answer_seeds = AnswerSeeds(requests, seed=self.seed)
        if not self.speed.warm:
            self._warm_up(str(requests[0].args[0]))
        with self.speed.only_if_complete():
            return cast("list[str]", super().generate_until(requests, disable_tqdm=True))

    def _warm_up(self, context: str) -> None:
        """Generate the beginning of one answer, which does not count."""
        ids, mask = super().tok_batch_encode([context], left_truncate_len=self.max_length - WARM_UP_TOKENS)
        self.model.generate(
            input_ids=ids.to(self.device),
            attention_mask=mask.to(self.device),
            max_new_tokens=WARM_UP_TOKENS,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id,
            synced_gpus=False,
        )
        self.speed.warm = True

    def tok_batch_encode(
        self, strings: list[str], *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.contexts = list(strings)  # lm-eval encodes the questions of a pass just before it generates
        return cast("tuple[torch.Tensor, torch.Tensor]", super().tok_batch_encode(strings, *args, **kwargs))

    def _model_generate(
        self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: object
    ) -> torch.Tensor:
        seeds = self.answer_seeds.take(self.contexts)
        beams = kwargs.get("num_beams") or 1
        start, generate = context.shape[1], super()._model_generate
        # With synced_gpus transformers pairs the generate calls of the ranks, which have different batches or none.
        call = partial(generate, context, max_length, stop, synced_gpus=False, **kwargs)
        with self.speed.measured(len(seeds), self.device):
            if kwargs.get("do_sample") and beams == 1:
                numbers_BN = random_numbers(seeds, max_length - start + 1).to(self.device)
                with sampled_by(self.base, RowSampler(numbers_BN, start=start)):
                    answers = call()
            else:
                if kwargs.get("do_sample"):
                    torch.manual_seed(seeds[0])  # beams are drawn from the generator of the process
                answers = call()
        self.progress.add(len(answers))
        return cast("torch.Tensor", answers)

    def _loglikelihood_tokens(
        self, requests: Sequence[TokenRequest], disable_tqdm: bool = True, override_bs: int | None = None
    ) -> list[Answered]:
        shared = [position for position, one in enumerate(requests) if self._is_shareable(one)]
        found = dict(zip(shared, self._shared_answers([requests[i] for i in shared]), strict=True))
        rest = [position for position in range(len(requests)) if position not in found]
        found |= zip(rest, self._own_answers([requests[i] for i in rest]), strict=True)
        return [found[position] for position in range(len(requests))]

    def _is_shareable(self, request: TokenRequest) -> bool:
        """Whether it is no window of a long text, and lm-eval cuts nothing of it."""
        texts, context, answer = request
        if self.shared is None or texts is None or not context or not answer:
            return False
        length = len(context) + len(answer) - 1
        longest = int(self.max_length)
        return length <= min(longest, self.shared.longest or longest)

    def _shared_answers(self, requests: Sequence[TokenRequest]) -> list[Answered]:
        """The answers with shared contexts; by lm-eval's own code where a sample shows that the model does not fit."""
        if self.shared is None or not requests:
            return []
        items = items_of([(context, answer) for _, context, answer in requests])
        clusters = clusters_of(items)
        try:
            found = self.shared.answers(
                clusters,
                rows=self.limit.rows,
                tokens=self.limit.rows * max(item.longest for item in items),
                logits=self.limit.logits // self.limit.width,
                answered=self.progress.add,
            )
        except NotShareable as error:
            return self._no_longer_shared(str(error), requests)
        sample = [position for item in sample_of(clusters) for position in item.requests]
        own = self._own_answers([requests[position] for position in sample])
        mine = [found[position] for position in sample]
        tokens = [len(requests[position][2]) for position in sample]
        if differs(mine, own, tokens=tokens, dtype=self.shared.dtype):
            return self._no_longer_shared("a sample of its answers differs from lm-eval's own", requests)
        return [found[position] for position in range(len(requests))]

    def _no_longer_shared(self, why: str, requests: Sequence[TokenRequest]) -> list[Answered]:
        self.shared, self.why_not_shared = None, why
        return self._own_answers(requests)

    def _own_answers(self, requests: Sequence[TokenRequest]) -> list[Answered]:
        """The answers of lm-eval's own code."""
        if not requests:
            return []
        if len(requests) > self.progress.steps:  # the windows of long texts
            self.progress.start_steps(len(requests))
        self.answered_before = self.progress.steps - len(requests)
        self.batch_size_per_gpu = "auto"  # makes lm-eval ask `_batch_scheduler` for the size of each pass
        try:
            return cast("list[Answered]", super()._loglikelihood_tokens(requests, disable_tqdm=True))
        finally:
            self.batch_size_per_gpu = self.limit.rows

    def _batch_scheduler(self, pos: int, requests: Sequence[TokenRequest]) -> int:
        """The rows of the pass that holds the request at `pos`; lm-eval has sorted the longest to the front."""
        self.progress.reach(self.answered_before + pos)
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
            self.progress.start_steps(len(requests))
            answers = without_out_of_memory(
                partial(method, requests, disable_tqdm=True),
                may_retry=self.forward_sync is None and (self.limit.rows > 1 or self.shared is not None),
            )
            if answers is not None:
                return answers
            if self.limit.rows > 1:
                self.limit.halve(rows=self.pass_rows, tokens=self.pass_tokens)
                self.batch_size_per_gpu = self.limit.rows
            else:
                self.shared, self.why_not_shared = None, "a row with all answers needs too much memory"

    def answer_in_advance(self, requests: Sequence[Instance]) -> None:
        """Answer requests before lm-eval asks for them; their answers are kept until `known` is cleared."""
        kinds = dict.fromkeys(one.request_type for one in requests)
        for kind in kinds:
            asked = [one for one in requests if one.request_type == kind]
            answers = getattr(self, kind)(asked)
            self.known.update((id(one), answer) for one, answer in zip(asked, answers, strict=True))

    def _answer_distributed(
        self, method: Callable[..., list[Answer]], requests: Sequence[Instance]
    ) -> list[Answer]:
        """The answers on every rank; requests that were answered in advance are not asked again."""
        missing = [one for one in requests if id(one) not in self.known] if self.known else requests
        found = iter(self._ask_all_ranks(method, missing) if missing else ())
        return [
            cast("Answer", self.known[id(one)]) if id(one) in self.known else next(found) for one in requests
        ]

    def _ask_all_ranks(
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
