"""Packed rows give the losses and gradients of rows that stand alone, or the model is refused."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from hpotune.finetune.training.adapter_training import check_settings
from hpotune.finetune.training.loss import IGNORED, Row
from hpotune.finetune.training.packing import (
    check_isolation,
    collate_packed,
    flat,
    rank_passes,
    reads_flat,
    sequences,
)
from hpotune.finetune.training.training_loop import _packed_batches, _summed_gradients, accumulate_gradients
from hpotune.finetune.trial_errors import UserError
from tests.fixtures.tiny_trials import ONE_RANK, adapter_distance, result_of, run_here, start_trial
from tests.fixtures.tiny_trials import home as home
from tests.fixtures.tiny_trials import make_spec as make_spec

EXACT = 1e-9
EAGER = 1e-6  # eager attention computes its softmax in float32 in a float64 model, too
SIZE = {"vocab_size": 61, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
WIDE = {**SIZE, "intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 8}
SMALL = {"vocab_size": 61, "hidden_size": 16, "n_layer": 2, "n_head": 2}
STILL = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
KEPT_APART: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**WIDE),
    "mistral": lambda: transformers.MistralConfig(**WIDE, sliding_window=4),
    "gemma2": lambda: transformers.Gemma2Config(**WIDE, sliding_window=4, final_logit_softcapping=3.0),
    "qwen3": lambda: transformers.Qwen3Config(**WIDE),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=61, n_embd=16, n_layer=2, n_head=2, n_positions=64, **STILL
    ),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SIZE, intermediate_size=32),
}
MIXED: dict[str, Any] = {
    "bloom": lambda: transformers.BloomConfig(**SMALL),
    "mamba": lambda: transformers.MambaConfig(
        vocab_size=61, hidden_size=16, num_hidden_layers=2, state_size=4
    ),
}
MIXED["mpt"] = lambda: transformers.MptConfig(
    vocab_size=61, d_model=16, n_layers=2, n_heads=2, max_seq_len=64
)


def made(config: Any, attention: str = "sdpa") -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = transformers.AutoModelForCausalLM.from_config(
        config(), attn_implementation=attention
    )
    return model.double().train()


def some_rows(count: int, seed: int = 0) -> list[Row]:
    """Rows of 3 to 24 tokens with prompts that are not counted."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        ids = [rng.randrange(3, 61) for _ in range(rng.randint(3, 24))]
        prompt = rng.randrange(len(ids) - 1)
        rows.append(Row(ids=ids, targets=[IGNORED] * prompt + ids[prompt:]))
    return rows


def gradients(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def both_ways(
    model: torch.nn.Module, rows: list[Row], *, one_sequence: bool = False
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Sums and gradients of rows that stand alone, one in each pass, and of packed rows."""
    alone = [[index] for index in range(len(rows))]
    sums = accumulate_gradients(model, rows, alone, smoothing=0.1, pad_id=0, ranks=ONE_RANK)
    found = [sums, gradients(model)]
    batches = _packed_batches(
        rows,
        range(len(rows)),
        micro_batch=2,
        capacity=24,
        pad_id=0,
        ranks=ONE_RANK,
        one_sequence=one_sequence,
    )
    sums = _summed_gradients(model, batches, smoothing=0.1, ranks=ONE_RANK)
    return found, [sums, gradients(model)]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(1, 4), st.integers(1, 3))
def test_every_row_is_in_one_pass(lengths: list[int], world: int, micro_batch: int) -> None:
    known, rows = dict(enumerate(lengths)), list(range(len(lengths)))
    given_to = [
        rank_passes(rows, known, rank=rank, world_size=world, micro_batch=micro_batch, capacity=20)
        for rank in range(world)
    ]
    assert len({len(passes) for passes in given_to}) == 1
    packed = [one for passes in given_to for made in passes for one in made]
    assert Counter(row for one in packed for row in one) == Counter(rows)
    assert all(sum(lengths[row] for row in one) <= 20 for one in packed)
    assert all(len(made) <= micro_batch for passes in given_to for made in passes)


def test_short_rows_share_a_sequence() -> None:
    found = sequences(range(5), dict(enumerate([9, 4, 5, 2, 8])), capacity=10)
    assert found == [[0], [4, 3], [2, 1]]


def test_positions_start_again() -> None:
    rows = [
        [Row(ids=[5, 6, 7], targets=[IGNORED, 6, 7]), Row(ids=[8, 9], targets=[8, 9])],
        [Row(ids=[4] * 6, targets=[4] * 6)],
    ]
    batch = collate_packed(rows, pad_id=0, device=torch.device("cpu"))
    assert batch.ids_BT.tolist() == [[5, 6, 7, 8, 9, 0], [4] * 6]
    assert batch.position_ids_BT is not None
    assert batch.position_ids_BT.tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]]
    assert batch.positions_N.tolist() == [0, 1, 3, 6, 7, 8, 9, 10]
    assert batch.targets_N.tolist() == [6, 7, 9, 4, 4, 4, 4, 4]


@pytest.mark.parametrize(
    ("name", "attention", "exact"),
    [(name, "sdpa", EXACT) for name in KEPT_APART if name != "gemma2"]  # which has no sdpa
    + [(name, "eager", EAGER) for name in KEPT_APART],
)
def test_packed_gradients_are_equal(name: str, attention: str, exact: float) -> None:
    model, rows = made(KEPT_APART[name], attention), some_rows(15)
    check_isolation(model, rows, pad_id=0, ranks=ONE_RANK)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    alone, packed = both_ways(model, rows)
    assert float((alone[0] - packed[0]).abs().max()) < exact
    assert float((alone[1] - packed[1]).abs().max()) < exact
    assert float(alone[1].abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["llama", "mistral", "gpt2"])
def test_rows_without_padding_are_equal(name: str) -> None:
    """All rows of a pass in one sequence, as flash attention needs them."""
    model, rows = made(KEPT_APART[name]), some_rows(15)
    alone, packed = both_ways(model, rows, one_sequence=True)
    assert float((alone[0] - packed[0]).abs().max()) < EXACT
    assert float((alone[1] - packed[1]).abs().max()) < EXACT


def test_flat_pass_has_no_padding() -> None:
    rows, lengths = some_rows(15), {index: len(row.ids) for index, row in enumerate(some_rows(15))}
    passes = rank_passes(range(15), lengths, rank=0, world_size=1, micro_batch=2, capacity=24)
    assert [len(flat(one)) for one in passes] == [1] * len(passes)
    assert sorted(index for one in passes for index in flat(one)[0]) == list(range(15))
    made_of = [
        collate_packed([[rows[i] for i in flat(one)[0]]], pad_id=0, device=torch.device("cpu"))
        for one in passes
    ]
    assert sum(one.ids_BT.numel() for one in made_of) == sum(lengths.values())
    assert flat([]) == []


def test_flash_attention_reads_flat() -> None:
    model = made(KEPT_APART["llama"])
    assert not reads_flat(model)
    model.config._attn_implementation = "flash_attention_2"
    assert reads_flat(model)


@pytest.mark.parametrize("name", MIXED)
def test_mixing_models_are_refused(name: str) -> None:
    model, rows = made(MIXED[name], "eager"), some_rows(4)
    with pytest.raises(UserError, match="^train.packing: .*; remove it$"):
        check_isolation(model, rows, pad_id=0, ranks=ONE_RANK)


def test_trial_packs_with_equal_numbers(make_spec: Any) -> None:
    data = {"prompt": "{input} Topic: ", "response": "{output}"}
    train = {"global_batch_size": 7, "per_device_train_batch_size": 2}
    alone = make_spec("alone", train=train, data=data)
    one = make_spec("one", train={**train, "packing": True}, data=data)
    two = make_spec("two", train={**train, "packing": True, "gradient_checkpointing": True}, data=data)
    process = start_trial(two, processes=2)
    results = [run_here(alone), run_here(one)]
    assert process.wait(timeout=300) == 0, (Path(two.folder) / "log.txt").read_text()
    for other in (one, two):
        assert adapter_distance(alone, other) < EXACT
    for result in (results[1], result_of(two)):
        assert result.values == pytest.approx(results[0].values, abs=EXACT)
        for name in ("train_loss", "global_batch_size", "train_rows"):
            assert result.metrics[name] == pytest.approx(results[0].metrics[name], abs=EXACT)


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"train": {"neftune_noise_alpha": 5.0}}, "the noise of train.neftune_noise_alpha depends"),
        ({"model": {"task": "sequence_classification"}}, "a sequence_classification model reads one class"),
    ],
)
def test_settings_without_packing(make_spec: Any, sections: dict[str, Any], says: str) -> None:
    given = {**sections, "train": {**sections.get("train", {}), "packing": True}}
    with pytest.raises(UserError, match=f"^train.packing: .*{says}"):
        check_settings(make_spec(**given))


def test_stateful_model_is_found_early(make_spec: Any, tmp_path: Path) -> None:
    transformers.MambaConfig(vocab_size=61, hidden_size=16, num_hidden_layers=2).save_pretrained(
        tmp_path / "mamba"
    )
    spec = make_spec(model={"path": str(tmp_path / "mamba")}, train={"packing": True})
    with pytest.raises(UserError, match="a mamba model cannot keep packed rows apart"):
        check_settings(spec)
