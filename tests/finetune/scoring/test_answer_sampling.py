"""Sampled answers: the distribution of transformers, whatever the batch, and each setting reaches generate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TopKLogitsWarper

from hpotune.finetune.scoring.answer_sampling import AnswerSeeds, RowSampler, random_numbers
from hpotune.finetune.scoring.distributed_lm import DistributedLM
from hpotune.finetune.training.pass_limit import PassLimit
from tests.fixtures.tiny_model import tiny_tokenizer
from tests.fixtures.tiny_trials import ONE_RANK

SAMPLED = {"do_sample": True, "temperature": 1.0}
OWN = {"until": ["</s>"], "max_gen_toks": 8}
PROMPTS = [f"word {n} " + "and " * (n % 5) for n in range(9)]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def tiny() -> LlamaForCausalLM:
    """In float64, so that other batches round the same."""
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).double().eval()


def asked(**settings: Any) -> list[Instance]:
    return [
        Instance("generate_until", {}, (text, {**OWN, **settings}), 0, metadata=("toy", n, 1))
        for n, text in enumerate(PROMPTS)
    ]


def answers(
    tokenizer: PreTrainedTokenizerFast, requests: list[Instance], *, rows: int = 4, seed: int = 0
) -> list[str]:
    limit = PassLimit(rows=rows, logits=2**23, width=512)
    lm = DistributedLM(tiny(), tokenizer, limit=limit, ranks=ONE_RANK, seed=seed)
    return lm.generate_until(requests)


def test_draws_follow_the_softmax():
    scores_BV = torch.tensor([[2.0, 0.5, -1.0, 3.0, 0.0]]).repeat(20_000, 1)
    ids = torch.zeros((20_000, 7), dtype=torch.long)
    left = RowSampler(random_numbers(range(20_000), 3), start=5)(ids, TopKLogitsWarper(3)(ids, scores_BV))
    shares = torch.bincount(left.argmax(-1), minlength=5) / 20_000
    expected = torch.tensor([2.0, 0.5, -torch.inf, 3.0, -torch.inf]).softmax(0)
    assert (left.isfinite().sum(-1) == 1).all()
    assert shares.tolist() == pytest.approx(expected.tolist(), abs=0.012)  # 3.5 standard errors


def test_extreme_numbers_choose_possible_tokens():
    scores_BV = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).repeat(2, 1)
    numbers_BN = torch.tensor([[0.0], [1.0 - 2**-53]], dtype=torch.float64)
    left = RowSampler(numbers_BN, start=1)(torch.zeros((2, 1), dtype=torch.long), scores_BV)
    assert left.argmax(-1).tolist() == [1, 2]


def test_answers_are_independent_of_batches(tokenizer: PreTrainedTokenizerFast):
    alone = answers(tokenizer, asked(**SAMPLED), rows=1)
    assert answers(tokenizer, asked(**SAMPLED), rows=4) == alone
    assert answers(tokenizer, asked(**SAMPLED)[::-1], rows=4) == alone[::-1]
    assert answers(tokenizer, asked(**SAMPLED)[3:5], rows=4) == alone[3:5]
    assert len(set(alone)) == len(alone)


def test_seed_changes_sampled_answers_only(tokenizer: PreTrainedTokenizerFast):
    assert answers(tokenizer, asked(**SAMPLED), seed=0) == answers(tokenizer, asked(**SAMPLED), seed=0)
    assert answers(tokenizer, asked(**SAMPLED), seed=0) != answers(tokenizer, asked(**SAMPLED), seed=1)
    assert answers(tokenizer, asked(), seed=0) == answers(tokenizer, asked(), seed=1)


def test_repeats_of_a_request_differ(tokenizer: PreTrainedTokenizerFast):
    one = asked(**SAMPLED)[0]
    found = answers(tokenizer, [one, one, one])
    assert len(set(found)) == 3
    assert answers(tokenizer, [one]) == found[:1]
    seeds = AnswerSeeds([one, one], seed=0)
    assert seeds.take([PROMPTS[0]]) != seeds.take([PROMPTS[0]])


def test_beams_are_reproducible_when_sampled(tokenizer: PreTrainedTokenizerFast):
    settings = {**SAMPLED, "num_beams": 3}
    assert answers(tokenizer, asked(**settings)) == answers(tokenizer, asked(**settings))
    assert answers(tokenizer, asked(**settings)) != answers(tokenizer, asked(num_beams=3))


EFFECTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"do_sample": True, "temperature": 1.0}, {}),
    ({**SAMPLED, "temperature": 0.3}, SAMPLED),
    ({**SAMPLED, "top_k": 2}, SAMPLED),
    ({**SAMPLED, "top_p": 0.2}, SAMPLED),
    ({**SAMPLED, "min_p": 0.9}, SAMPLED),
    ({**SAMPLED, "top_h": 0.1}, SAMPLED),
    ({**SAMPLED, "typical_p": 0.1}, SAMPLED),
    ({**SAMPLED, "epsilon_cutoff": 0.02}, SAMPLED),
    ({**SAMPLED, "eta_cutoff": 0.9}, SAMPLED),
    ({"repetition_penalty": 5.0}, {}),
    ({"no_repeat_ngram_size": 1}, {}),
    ({"num_beams": 4}, {}),
    ({"num_beams": 4, "length_penalty": -20.0}, {"num_beams": 4}),
    ({"num_beams": 4, "early_stopping": True}, {"num_beams": 4}),
    ({"min_new_tokens": 8}, {}),
    ({"max_gen_toks": 3}, {}),
    ({"exponential_decay_length_penalty": [1, 4.0]}, {}),
    ({"renormalize_logits": True}, {}),
    ({"remove_invalid_values": True}, {}),
    ({"until": ["e"]}, {}),
]
SAME_HERE = {"early_stopping", "min_new_tokens", "renormalize_logits", "remove_invalid_values"}
"""Settings that change no answer of this model: it has no NaN, and its answers are short."""


@pytest.mark.parametrize(("settings", "without"), EFFECTS, ids=lambda given: next(reversed(given), "none"))
def test_setting_changes_what_is_generated(
    settings: dict[str, Any], without: dict[str, Any], tokenizer: PreTrainedTokenizerFast
):
    model = tiny()
    seen: list[Any] = []
    original = model._get_logits_processor

    def record(generation_config: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(generation_config)
        return original(generation_config, *args, **kwargs)

    model._get_logits_processor = record
    limit = PassLimit(rows=9, logits=2**23, width=512)
    lm = DistributedLM(model, tokenizer, limit=limit, ranks=ONE_RANK)
    found = lm.generate_until(asked(**settings))
    name = next(reversed(settings))
    if name not in ("max_gen_toks", "until"):  # lm-eval's own
        assert getattr(seen[-1], name) == settings[name]
    assert (found == lm.generate_until(asked(**without))) == (name in SAME_HERE)
