"""The mean loss over rows: the same for any size of the passes, and with fewer rows after an out-of-memory error."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from hpotune.finetune.training.loss import IGNORED, MeanLoss, Row, mean_loss
from hpotune.finetune.training.pass_limit import PassLimit, pass_limit, split_rows
from tests.fixtures.tiny_trials import ONE_RANK

SIZE = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "initializer_range": 0.5,
    "pad_token_id": 0,
}


def rows_of(count: int, *, classes: int = 0) -> list[Row]:
    draw = random.Random(4)
    rows = []
    for _ in range(count):
        ids = [draw.randrange(1, 97) for _ in range(draw.randrange(3, 40))]
        targets = [draw.randrange(classes)] if classes else [IGNORED, *ids[1:]]
        rows.append(Row(ids=ids, targets=targets))
    return rows


def measured(model: torch.nn.Module, data: list[Row], **limit: int) -> MeanLoss:
    given = {"rows": 16, "logits": 2**23, "width": 97, **limit}
    return mean_loss(model, data, pad_id=0, limit=PassLimit(**given), ranks=ONE_RANK)


@pytest.fixture(scope="module")
def models() -> dict[int, torch.nn.Module]:
    torch.manual_seed(0)
    return {
        0: LlamaForCausalLM(LlamaConfig(**SIZE)).double(),
        3: LlamaForSequenceClassification(LlamaConfig(**SIZE, num_labels=3)).double(),
    }


@pytest.mark.parametrize("classes", [0, 3])
def test_loss_is_same_for_any_limit(classes: int, models: dict[int, Any]) -> None:
    model, rows = models[classes], rows_of(23, classes=classes)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    alone = measured(model, rows, rows=1)
    for limit in ({}, {"rows": 5}, {"logits": 50 * 97}, {"logits": 1}):
        found = measured(model, rows, **limit)
        assert found.loss == pytest.approx(alone.loss, rel=1e-12)
        assert found.accuracy == alone.accuracy


def test_out_of_memory_keeps_loss(models: dict[int, Any], capfd: pytest.CaptureFixture[str]) -> None:
    model, rows, sizes = models[0], rows_of(23), list[int]()
    right = measured(model, rows)

    def hook(_: object, __: object, kwargs: Any) -> None:
        if len(kwargs["input_ids"]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(kwargs["input_ids"]))

    handle = model.register_forward_pre_hook(hook, with_kwargs=True)
    found = measured(model, rows)
    handle.remove()
    assert found.loss == pytest.approx(right.loss, rel=1e-12)
    assert sum(sizes) == len(rows)
    assert max(sizes) == 2
    assert capfd.readouterr().err.splitlines()[0].startswith("out of memory while scoring 16 rows of up to ")


@pytest.mark.parametrize("world_size", [1, 2, 5])
@pytest.mark.parametrize("tokens", [1, 64, 10_000])
def test_ranks_make_equal_passes(world_size: int, tokens: int) -> None:
    lengths = sorted(len(row.ids) for row in rows_of(31))
    groups = split_rows(lengths, limit=PassLimit(rows=4, logits=tokens * 97, width=97), world_size=world_size)
    assert [position for group in groups for position in group] == list(range(31))
    for group in groups:
        own = [group[rank::world_size] for rank in range(world_size)]
        most = max(len(part) for part in own)
        assert most <= 4
        assert most == 1 or most * lengths[group[-1]] <= tokens
    if tokens == 10_000:  # score.batch_size alone decides
        assert {len(group) for group in groups[:-1]} <= {4 * world_size}


def test_classes_are_width_of_classification(models: dict[int, Any]) -> None:
    assert pass_limit(models[3], batch_size=1, train_rows=1, train_tokens=1).width == 3
    assert pass_limit(models[0], batch_size=1, train_rows=1, train_tokens=1).width == 97


def test_default_batch_holds_one_row() -> None:
    width, tokens = 65_536, 160
    model = LlamaForCausalLM(LlamaConfig(**SIZE | {"vocab_size": width}))
    model.requires_grad_(False)
    sizes: list[int] = []
    model.lm_head.register_forward_hook(lambda _, __, logits: sizes.append(logits.numel()))
    rows = [Row(ids=[7] * tokens, targets=[IGNORED, *[n] * (tokens - 1)]) for n in range(6)]
    losses = []
    for batch_size in (1, 16):
        limit = pass_limit(model, batch_size=batch_size, train_rows=1, train_tokens=tokens)
        losses.append(mean_loss(model, rows, pad_id=0, limit=limit, ranks=ONE_RANK).loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-7)
    # first the check that counted logits equal all logits, on short rows
    check, passes = sizes[:2], sizes[2:]
    assert max(check) < width * (tokens - 1)
    assert passes == [width * (tokens - 1)] * 2 * len(rows)
