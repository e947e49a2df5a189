"""Rows, clusters and masks of shared contexts, by hand-worked examples."""

from __future__ import annotations

import random

import torch

from hpotune.finetune.scoring.shared_rows import (
    LEAST_CLUSTER,
    LEAST_PREFIX,
    Item,
    batches_of,
    clusters_of,
    items_of,
    row_tensors,
)


def item(context: list[int], *answers: list[int]) -> Item:
    return Item(context=context, answers=list(answers), requests=list(range(len(answers))))


def test_one_context_is_one_item() -> None:
    items = items_of([([1, 2], [3]), ([5], [6, 7]), ([1, 2], [4, 4])])
    assert [(one.context, one.answers, one.requests) for one in items] == [
        ([1, 2], [[3], [4, 4]], [0, 2]),
        ([5], [[6, 7]], [1]),
    ]
    assert (items[0].longest, items[0].tokens, items[0].scored) == (3, 3, 2)


def test_row_holds_context_once() -> None:
    row = row_tensors([item([10, 11, 12], [20, 21], [30, 31, 32]), item([40], [41])], prefix=0)
    assert row.ids_BT.tolist() == [[10, 11, 12, 20, 30, 31], [40, 0, 0, 0, 0, 0]]
    assert row.positions_BT[0].tolist() == [0, 1, 2, 3, 3, 4]
    assert row.scored_N.tolist() == [2, 3, 4, 5, 6]
    mask = row.mask_B1TS[:, 0].int().tolist()
    assert mask[0] == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 1, 0],
        [1, 1, 1, 0, 1, 1],
    ]
    assert mask[1] == torch.eye(6, dtype=torch.int).tolist()


def test_prefix_is_left_out_of_rows() -> None:
    row = row_tensors([item([1, 2, 3, 4], [7, 8])], prefix=2)
    assert row.ids_BT.tolist() == [[3, 4, 7]]
    assert row.positions_BT.tolist() == [[2, 3, 4]]
    assert row.mask_B1TS[0, 0].int().tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert row.scored_N.tolist() == [1, 2]


def test_items_with_one_prefix_form_cluster() -> None:
    shots = [list(range(subject, subject + LEAST_PREFIX)) for subject in (1000, 2000)]
    items = [item([*shots[n % 2], 5000 + n, 1], [n]) for n in range(2 * LEAST_CLUSTER)]
    lone = [item([9000 + n], [1]) for n in range(3)]
    clusters = clusters_of([*items, *lone])
    assert [(one.prefix, len(one.items)) for one in clusters] == [
        (LEAST_PREFIX, LEAST_CLUSTER),
        (LEAST_PREFIX, LEAST_CLUSTER),
        (0, 3),
    ]


def test_every_item_is_in_one_batch() -> None:
    rng = random.Random(0)
    shots = [[rng.randrange(50) for _ in range(60)] for _ in range(3)]
    items = [
        item(
            [*rng.choice([[], *shots]), *[rng.randrange(50) for _ in range(rng.randint(1, 30))]],
            *[[rng.randrange(50) for _ in range(rng.randint(1, 9))] for _ in range(rng.randint(1, 5))],
        )
        for _ in range(200)
    ]
    seen = []
    for cluster in clusters_of(items):
        prefix = cluster.items[0].context[: cluster.prefix]
        for batch in batches_of(cluster, rows=8, tokens=400, logits=60):
            assert all(one.context[: cluster.prefix] == prefix for one in batch)
            assert all(len(one.context) > cluster.prefix for one in batch)
            assert len(batch) == 1 or (
                len(batch) <= 8
                and len(batch) * max(one.tokens for one in batch) <= 400
                and sum(one.scored for one in batch) <= 60
            )
            seen += [id(one) for one in batch]
    assert sorted(seen) == sorted(map(id, items))
