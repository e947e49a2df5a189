"""Draws the tokens of a sampled answer from random numbers of its own, whatever batch and rank it is generated in.

transformers draws the tokens of a whole batch from one generator, so that an answer depends on its neighbours. Here the
last logits processor draws: the numbers of an answer follow from the study's seed, the task, the document and the
repeat. A trial of the same point and seed has the same answers with any batch size and number of ranks, up to the
rounding of the model's numbers, and trials at different points have the same random numbers.

Shape suffixes: B batch, T tokens so far, V vocabulary, N new tokens.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from transformers import LogitsProcessor, LogitsProcessorList


class RowSampler(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token of each row: the one at the row's next random number in the distribution of the scores.

    Must be the last processor. `multinomial` then has nothing to choose from.
    """

    def __init__(self, numbers_BN: torch.Tensor, *, start: int) -> None:
        self.numbers_BN = numbers_BN
        self.start = start
        """T of the question."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores_BV = scores
        sums_BV = scores_BV.double().softmax(-1).cumsum(-1)
        step = min(input_ids.shape[1] - self.start, self.numbers_BN.shape[1] - 1)
        number_B = self.numbers_BN[:, step]
        token_B1 = torch.searchsorted(sums_BV, (number_B * sums_BV[:, -1])[:, None], right=True)
        # The number is below the last sum; rounding may still lead behind the last token that is possible.
        token_B1 = torch.minimum(token_B1, torch.searchsorted(sums_BV, sums_BV[:, -1:].contiguous()))
        return torch.full_like(scores_BV, -torch.inf).scatter_(1, token_B1, 0.0)


def answer_seed(seed: int, request: Instance, repeat: int) -> int:
    """The seed of one answer. `repeat`: how many times the same request was asked before."""
    text = f"{seed}\0{request.task_name}\0{request.doc_id}\0{request.idx}\0{repeat}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


class AnswerSeeds:
    """The seeds of the requests of one call, handed out by their contexts in the order of the requests.

    All requests of a document are in one call, so that repeats are counted alike with any number of ranks.
    """

    def __init__(self, requests: Sequence[Instance], *, seed: int) -> None:
        self._of: dict[str, list[int]] = defaultdict(list)
        asked: Counter[tuple[str, int, int]] = Counter()
        for one in requests:
            key = (one.task_name, one.doc_id, one.idx)
            self._of[str(one.args[0])].append(answer_seed(seed, one, asked[key]))
            asked[key] += 1
        for seeds in self._of.values():
            seeds.reverse()

    def take(self, contexts: Sequence[str]) -> list[int]:
        """The seeds of the next answers to these contexts."""
        return [self._of[context].pop() for context in contexts]


def random_numbers(seeds: Sequence[int], length: int) -> torch.Tensor:
    """numbers_BN in [0, 1): a row for each seed."""
    return torch.from_numpy(np.stack([np.random.default_rng(seed).random(length) for seed in seeds]))


@contextmanager
def sampled_by(model: Any, sampler: RowSampler) -> Iterator[None]:  # noqa: ANN401 - a class of transformers
    """A context in which the model's `generate` draws with the sampler.

    transformers puts processors that a caller gives before those of temperature, top_k and top_p, so that the list
    itself has to be extended.
    """
    original: Callable[..., LogitsProcessorList] = model._get_logits_processor
    own = vars(model).get("_get_logits_processor")

    def extended(*args: object, **kwargs: object) -> LogitsProcessorList:
        return LogitsProcessorList([*original(*args, **kwargs), sampler])

    model._get_logits_processor = extended
    try:
        yield
    finally:
        if own is None:
            del model._get_logits_processor
        else:
            model._get_logits_processor = own
