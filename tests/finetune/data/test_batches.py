from __future__ import annotations

import pytest

from hpotune.finetune.data.batches import Batches, rank_micro_batches


def test_epoch_contains_every_row_once():
    batches = Batches(rows=23, global_batch=5, seed=7)
    for epoch in range(3):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        assert sorted(row for step in steps for row in batches.rows_at(step)) == list(range(23))


def test_step_is_independent_of_order():
    forward = Batches(rows=23, global_batch=5, seed=7)
    in_order = [forward.rows_at(step) for step in range(12)]
    assert [forward.rows_at(step) for step in reversed(range(12))] == in_order[::-1]


def test_epochs_and_seeds_differ_in_order():
    batches = Batches(rows=40, global_batch=40, seed=0)
    assert batches.rows_at(0) != batches.rows_at(1)
    assert batches.rows_at(0) != Batches(rows=40, global_batch=40, seed=1).rows_at(0)


def test_drop_last_skips_smaller_batch():
    batches = Batches(rows=23, global_batch=5, seed=7, drop_last=True)
    assert batches.steps_per_epoch == 4
    assert all(len(batches.rows_at(step)) == 5 for step in range(8))


@pytest.mark.parametrize(
    ("rows", "world_size", "micro_batch"), [(8, 1, 3), (8, 2, 3), (5, 2, 1), (1, 4, 2), (7, 3, 2)]
)
def test_ranks_get_equal_micro_batch_counts(rows, world_size, micro_batch):
    shares = [
        rank_micro_batches(range(rows), rank=rank, world_size=world_size, micro_batch=micro_batch)
        for rank in range(world_size)
    ]
    assert sorted(row for one in shares for micro in one for row in micro) == list(range(rows))
    assert len({len(one) for one in shares}) == 1
    assert all(len(micro) <= micro_batch for one in shares for micro in one)
