"""lm-eval's wrapper: it changes no weight, and its passes hold no more logits than the limit allows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lm_eval.api.instance import Instance
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hpotune.finetune.scoring.distributed_lm import DistributedLM
from hpotune.finetune.training.pass_limit import PassLimit, pass_limit
from tests.fixtures.tiny_model import tiny_tokenizer
from tests.fixtures.tiny_trials import ONE_RANK

IDS = torch.tensor([[5, 9, 40, 77, 300, 12]])


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


def tiny(*, tied: bool, vocabulary: int = 512) -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).eval()


def wrapped(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, *, rows: int = 4, logits: int = 2**23
) -> DistributedLM:
    """With lm-eval's own passes; those of shared contexts are tested in test_shared_context.py."""
    limit = PassLimit(rows=rows, logits=logits, width=512)
    return DistributedLM(model, tokenizer, limit=limit, ranks=ONE_RANK, share_context=False)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
        {"target_modules": ["q_proj"], "trainable_token_indices": [5, 9]},
    ],
    ids=str,
)
def test_wrapper_changes_no_weight(
    lora: dict[str, Any], tied: bool, tokenizer: PreTrainedTokenizerFast
) -> None:
    model = get_peft_model(tiny(tied=tied), LoraConfig(r=2, task_type="CAUSAL_LM", **lora)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # as training would
                parameter += 0.1 * torch.randn_like(parameter)
        before = {name: (p.data_ptr(), p.clone()) for name, p in model.named_parameters()}
        loss = model(input_ids=IDS, labels=IDS).loss
        modules = {name: id(module) for name, module in model.named_modules()}
        lm = wrapped(model, tokenizer)
        (answer,) = lm.loglikelihood([request("a b", " c")])
        assert torch.equal(model(input_ids=IDS, labels=IDS).loss, loss)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert {name: id(module) for name, module in model.named_modules()} == modules
    assert all(after[name].data_ptr() == address for name, (address, _) in before.items())
    assert all(torch.equal(after[name], value) for name, (_, value) in before.items())
    assert answer[0] == pytest.approx(likelihood(model, tokenizer, "a b", " c"), rel=1e-5)


def likelihood(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, context: str, answer: str
) -> float:
    """The sum of the log probabilities of the answer's tokens, by torch alone."""
    ids = tokenizer.encode(context + answer)
    start = len(tokenizer.encode(context))
    with torch.no_grad():
        logs = model(input_ids=torch.tensor([ids])).logits.log_softmax(-1)[0]
    return float(sum(logs[i - 1, ids[i]] for i in range(start, len(ids))))


def request(context: str, answer: str, doc: int = 0) -> Instance:
    return Instance("loglikelihood", {}, (context, answer), 0, metadata=("toy", doc, 1))


REQUESTS = [request(f"{n} " + "word " * (n % 9), f" {'ab'[n % 2]} c", n) for n in range(20)]


def passes_of(model: torch.nn.Module) -> list[tuple[int, int]]:
    """The shape of the ids of every pass of the model from now on."""
    shapes: list[tuple[int, int]] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple((args[0] if args else kwargs["input_ids"]).shape)),
        with_kwargs=True,
    )
    return shapes


@pytest.mark.parametrize(("rows", "tokens"), [(4, 1000), (4, 30), (16, 40), (16, 1)])
def test_passes_stay_below_limit(rows: int, tokens: int, tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny(tied=False)
    free = wrapped(model, tokenizer, rows=20).loglikelihood(REQUESTS)
    shapes = passes_of(model)
    lm = wrapped(model, tokenizer, rows=rows, logits=tokens * 512)
    found = lm.loglikelihood(REQUESTS)
    assert [one for one, _ in found] == pytest.approx([one for one, _ in free], rel=1e-5)
    assert all(b <= rows and (b == 1 or b * t <= tokens) for b, t in shapes)
    assert sum(b for b, _ in shapes) == len(REQUESTS)
    if tokens == 1000:
        assert {b for b, _ in shapes} == {rows}
    rolling = [
        Instance("loglikelihood_rolling", {}, (r.args[0],), 0, metadata=("toy", 0, 1)) for r in REQUESTS
    ]
    del shapes[:]
    texts = lm.loglikelihood_rolling(rolling)
    assert all(b <= rows and (b == 1 or b * t <= tokens) for b, t in shapes)
    assert texts == pytest.approx(wrapped(model, tokenizer, rows=1).loglikelihood_rolling(rolling), rel=1e-5)


def fail_above(model: torch.nn.Module, rows: int) -> None:
    """Makes passes of more rows raise the error of a full GPU."""

    def hook(_: object, args: Any, kwargs: Any) -> None:
        if len(args[0] if args else kwargs["input_ids"]) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(hook, with_kwargs=True)


@pytest.mark.parametrize("fits", [1, 3])
def test_out_of_memory_halves_passes(
    fits: int, tokenizer: PreTrainedTokenizerFast, capfd: pytest.CaptureFixture[str]
) -> None:
    model = tiny(tied=False)
    free = wrapped(model, tokenizer).loglikelihood(REQUESTS)
    fail_above(model, fits)
    lm = wrapped(model, tokenizer, rows=8)
    found = lm.loglikelihood(REQUESTS)
    assert [one for one, _ in found] == pytest.approx([one for one, _ in free], rel=1e-5)
    assert "out of memory while scoring 8 rows of up to " in capfd.readouterr().err
    assert lm.limit.rows == {1: 1, 3: 2}[fits]
    generated = [Instance("generate_until", {}, (r.args[0], {"max_gen_toks": 3}), 0) for r in REQUESTS[:5]]
    assert len(lm.generate_until(generated)) == 5


def test_single_row_cannot_be_halved(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny(tied=False)
    fail_above(model, 0)
    with pytest.raises(torch.OutOfMemoryError):
        wrapped(model, tokenizer, rows=4).loglikelihood(REQUESTS)


def test_limit_follows_training() -> None:
    large = pass_limit(tiny(tied=False), batch_size=64, train_rows=8, train_tokens=4096)
    assert (large.rows, large.logits, large.width) == (64, 8 * 4096 * 512, 512)
    assert large.rows_of(4096) == 8
    assert large.rows_of(10_000_000) == 1
    assert large.rows_of(1) == 64
    small = pass_limit(tiny(tied=True), batch_size=16, train_rows=1, train_tokens=8)
    assert small.rows_of(64) == 16  # 32 MB of logits are always allowed
