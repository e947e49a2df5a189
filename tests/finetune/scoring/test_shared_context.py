"""Shared contexts give lm-eval's own numbers, for every kind of attention, and refuse models that they do not fit."""

from __future__ import annotations

import random

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from hpotune.finetune.scoring import shared_rows
from hpotune.finetune.scoring.distributed_lm import DistributedLM
from hpotune.finetune.scoring.shared_context import differs, sample_of
from hpotune.finetune.scoring.shared_rows import clusters_of, items_of
from hpotune.finetune.training.pass_limit import PassLimit
from tests.fixtures.tiny_model import tiny_tokenizer
from tests.fixtures.tiny_trials import ONE_RANK

TEXT = "the quick brown fox jumps over a lazy dog and some more words follow here"
SIZES = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 512,
}  # fmt: skip
GROUPED = {**SIZES, "num_key_value_heads": 2}
MODELS = {
    "llama": GROUPED,
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "phi3": {**GROUPED, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "gpt_neox": SIZES,
    "gpt2": {"vocab_size": 512, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "opt": {**SIZES, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "mixtral": {**GROUPED, "num_local_experts": 4},
    "gemma2": {**GROUPED, "head_dim": 8, "sliding_window": 256},
    "mistral": {**GROUPED, "sliding_window": 60},
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def requests() -> list[Instance]:
    """Items with and without few-shot examples, of one to four answers; no context, and one that ends with a space."""
    rng = random.Random(0)

    words_of_text = TEXT.split()

    def text(words: int) -> str:
        return " ".join(rng.choice(words_of_text) for _ in range(words))

    shots = [text(60) + "\n\n", text(80) + "\n\n"]
    found = []
    for doc in range(24):
        context = ["", *shots][doc % 3] + text(rng.randint(1, 15))
        for _ in range(rng.randint(1, 4)):
            found.append((context, " " + text(rng.randint(1, 5)), doc))
    found += [(text(3) + " ", text(2), 24), ("", text(3), 25), ("", text(1), 25)]
    return [Instance("loglikelihood", {}, (c, a), 0, metadata=("toy", doc, 1)) for c, a, doc in found]


def build(kind: str, attention: str, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **MODELS[kind])
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval().to(dtype)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data *= 4  # else all tokens are about equally likely
    return model


def scorer(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, *, share: bool = True
) -> DistributedLM:
    limit = PassLimit(rows=8, logits=2**23, width=512)
    return DistributedLM(model, tokenizer, limit=limit, ranks=ONE_RANK, share_context=share)


def own_answers(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, requests: list[Instance]
) -> list[tuple[float, bool]]:
    """lm-eval's own class, with passes of one size."""
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8).loglikelihood(
        requests, disable_tqdm=True
    )


def assert_equal(mine, theirs, *, within: float) -> None:
    assert [greedy for _, greedy in mine] == [greedy for _, greedy in theirs]
    assert max(abs(one - other) for (one, _), (other, _) in zip(mine, theirs, strict=True)) < within


@pytest.mark.parametrize("kind", MODELS)
def test_answers_are_those_of_lm_eval(kind, tokenizer, requests) -> None:
    for attention in ("eager",) if kind == "gemma2" else ("sdpa", "eager"):
        model = build(kind, attention)
        lm = scorer(model, tokenizer)
        assert_equal(lm.loglikelihood(requests), own_answers(model, tokenizer, requests), within=1e-4)
        assert lm.why_not_shared is None


def test_answers_in_float64_are_exact(tokenizer, requests) -> None:
    model = build("llama", "sdpa", torch.float64)
    mine = scorer(model, tokenizer).loglikelihood(requests)
    assert_equal(mine, own_answers(model, tokenizer, requests), within=1e-11)


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]},
    ],
    ids=str,
)
def test_adapter_on_output_layer_is_scored(lora, tokenizer, requests) -> None:
    model = get_peft_model(build("llama", "sdpa"), LoraConfig(r=2, task_type="CAUSAL_LM", **lora)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    lm = scorer(model, tokenizer)
    mine = lm.loglikelihood(requests)
    assert lm.why_not_shared is None
    assert_equal(mine, scorer(model, tokenizer, share=False).loglikelihood(requests), within=1e-4)


def test_fewer_tokens_are_forwarded(tokenizer, requests) -> None:
    model = build("llama", "sdpa")
    counts: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: counts.append((args[0] if args else kwargs["input_ids"]).numel()),
        with_kwargs=True,
    )
    forwarded = []
    for share in (True, False):
        counts.clear()
        lm = scorer(model, tokenizer, share=share)
        lm.loglikelihood(requests)
        lm.remove_hook()
        forwarded.append(sum(counts))
    assert forwarded[0] < forwarded[1] / 2.5


def test_long_requests_are_not_shared(tokenizer, requests) -> None:
    lm = scorer(build("mistral", "sdpa"), tokenizer)
    lengths: list[int] = []
    assert lm.shared is not None
    answers = lm.shared.answers

    def watched(clusters, **limits):
        lengths.extend(item.longest for cluster in clusters for item in cluster.items)
        return answers(clusters, **limits)

    lm.shared.answers = watched
    lm.loglikelihood(requests)
    assert 0 < max(lengths) <= MODELS["mistral"]["sliding_window"]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("bloom", {"vocab_size": 512, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
        ("mpt", {"vocab_size": 512, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 512}),
        ("mamba", {"vocab_size": 512, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    ],
)
def test_other_models_are_not_shared(kind, settings, tokenizer, requests) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        parameter.data *= 4 if parameter.dim() > 1 else 1
    lm = scorer(model, tokenizer)
    assert lm.loglikelihood(requests) == scorer(model, tokenizer, share=False).loglikelihood(requests)
    assert lm.why_not_shared is not None


def shifted(length: int) -> torch.Tensor:
    return torch.ones((length, length), dtype=torch.bool).tril(1)


def blind(length: int) -> torch.Tensor:
    return torch.eye(length, dtype=torch.bool)


@pytest.mark.parametrize(
    ("mask", "dtype"), [(shifted, torch.float32), (blind, torch.float32), (blind, torch.bfloat16)], ids=str
)
def test_wrong_mask_is_noticed(mask, dtype, monkeypatch, tokenizer, requests) -> None:
    monkeypatch.setattr(shared_rows, "_causal", mask)
    model = build("qwen3", "sdpa", dtype)
    lm = scorer(model, tokenizer)
    mine = lm.loglikelihood(requests)
    assert lm.why_not_shared == "a sample of its answers differs from lm-eval's own"
    assert mine == scorer(model, tokenizer, share=False).loglikelihood(requests)


def test_sample_holds_both_kinds() -> None:
    prefix = list(range(100, 100 + shared_rows.LEAST_PREFIX))
    pairs = [([*prefix, n, *range(n)], [1, 2]) for n in range(20)] + [
        ([50 + n] * (n + 1), [3]) for n in range(20)
    ]
    clusters = clusters_of(items_of(pairs))
    assert [cluster.prefix for cluster in clusters] == [len(prefix), 0]
    picked = sample_of(clusters)
    assert [one.tokens for one in picked] == [len(prefix) + 21, 20, len(prefix) + 2, 1]
    assert len(sample_of(clusters_of(items_of(pairs[:3])))) == 1


def test_differences_beyond_rounding() -> None:
    def beyond(mine: float, theirs: float, dtype: torch.dtype, tokens: int = 4) -> bool:
        return differs([(mine, True)], [(theirs, True)], tokens=[tokens], dtype=dtype)

    assert not beyond(-100.0, -100.0005, torch.float32)
    assert beyond(-100.0, -100.001, torch.float32)
    assert not beyond(-100.0, -100.1, torch.bfloat16)
    assert beyond(-100.0, -101.0, torch.bfloat16)
    assert not beyond(-100.0, -101.0, torch.bfloat16, tokens=400)
    assert not beyond(float("nan"), float("nan"), torch.float32)
    assert not beyond(float("-inf"), float("-inf"), torch.float32)
    assert beyond(float("nan"), -1.0, torch.float32)
    assert beyond(float("-inf"), -1.0, torch.float32)


def test_memory_error_halves_the_passes(tokenizer, requests) -> None:
    model = build("llama", "sdpa")
    free = scorer(model, tokenizer).loglikelihood(requests)
    largest: list[int] = []

    def refuse(_, args, kwargs) -> None:
        ids = args[0] if args else kwargs["input_ids"]
        if ids.shape[0] > 2:
            raise torch.OutOfMemoryError("too many rows")
        largest.append(ids.shape[0])

    model.register_forward_pre_hook(refuse, with_kwargs=True)
    lm = scorer(model, tokenizer)
    assert_equal(lm.loglikelihood(requests), free, within=1e-4)
    assert lm.limit.rows == 2
    assert lm.why_not_shared is None


def test_row_too_large_is_not_shared(tokenizer, requests) -> None:
    model = build("llama", "sdpa")
    free = scorer(model, tokenizer).loglikelihood(requests)

    def refuse(_, args, kwargs) -> None:
        if kwargs.get("position_ids") is not None:
            raise torch.OutOfMemoryError("a row with all answers")

    model.register_forward_pre_hook(refuse, with_kwargs=True)
    lm = scorer(model, tokenizer)
    assert_equal(lm.loglikelihood(requests), free, within=1e-4)
    assert lm.why_not_shared == "a row with all answers needs too much memory"


def test_answers_do_not_depend_on_order(tokenizer, requests) -> None:
    model = build("llama", "sdpa", torch.float64)
    order = random.Random(1).sample(range(len(requests)), len(requests))
    straight = scorer(model, tokenizer).loglikelihood(requests)
    mixed = scorer(model, tokenizer).loglikelihood([requests[at] for at in order])
    assert_equal(mixed, [straight[at] for at in order], within=1e-11)
