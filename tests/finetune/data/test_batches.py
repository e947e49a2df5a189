from __future__ import annotations

import pytest

from hpotune.finetune.data.batches import Batches, share


def test_an_epoch_meets_every_row_once():
    batches = Batches(rows=23, global_batch=5, seed=7)
    for epoch in range(3):
        steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
        assert sorted(row for step in steps for row in batches.at(step)) == list(range(23))


def test_a_step_is_the_same_whichever_was_asked_before():
    forward = Batches(rows=23, global_batch=5, seed=7)
    in_order = [forward.at(step) for step in range(12)]
    assert [forward.at(step) for step in reversed(range(12))] == in_order[::-1]


def test_epochs_and_seeds_differ_in_order():
    batches = Batches(rows=40, global_batch=40, seed=0)
    assert batches.at(0) != batches.at(1)
    assert batches.at(0) != Batches(rows=40, global_batch=40, seed=1).at(0)


def test_drop_last_leaves_the_smaller_batch_out():
    batches = Batches(rows=23, global_batch=5, seed=7, drop_last=True)
    assert batches.steps_per_epoch == 4
    assert all(len(batches.at(step)) == 5 for step in range(8))


@pytest.mark.parametrize(
    ("rows", "world_size", "micro_batch"), [(8, 1, 3), (8, 2, 3), (5, 2, 1), (1, 4, 2), (7, 3, 2)]
)
def test_ranks_share_a_batch_and_take_equally_many_turns(rows, world_size, micro_batch):
    shares = [
        share(range(rows), rank=rank, world_size=world_size, micro_batch=micro_batch)
        for rank in range(world_size)
    ]
    assert sorted(row for one in shares for micro in one for row in micro) == list(range(rows))
    assert len({len(one) for one in shares}) == 1
    assert all(len(micro) <= micro_batch for one in shares for micro in one)
