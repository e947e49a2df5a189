"""A trial that is trained rung by rung: where each turn ends, what it is scored on, and that nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.finetune.conftest import apart, here
from tests.tiny import topic_task

EXACT = 1e-12
WARM = {"train": {"warmup_steps": 3, "lr_scheduler_type": "cosine"}, "lora": {"lora_dropout": 0.2}}


def rung(index: int, budget: float, *, unit: str = "share", last: bool = False) -> dict:
    return {"rung": {"index": index, "unit": unit, "budget": budget, "last": last}}


def curve(spec) -> list[tuple[int, float]]:
    lines = (Path(spec.folder) / "curve.jsonl").read_text().splitlines()
    return [(line["step"], line["lr"]) for line in map(json.loads, lines)]


def test_rung_by_rung_a_trial_ends_as_one_that_was_trained_in_one_go(make_spec):
    whole = make_spec("whole", **WARM)
    turns = [rung(0, 1 / 9), rung(1, 1 / 3), rung(2, 1.0, last=True)]
    results = [here(make_spec("climbing", spec=turn, **WARM)) for turn in turns]
    straight = here(whole)
    assert [(found.rung, found.metrics["steps"]) for found in results] == [(0, 2), (1, 4), (2, 12)]
    assert apart(whole, make_spec("climbing", **WARM)) < EXACT
    assert results[2].values == pytest.approx(straight.values, abs=EXACT)
    assert results[2].metrics["train_loss"] == pytest.approx(straight.metrics["train_loss"], abs=EXACT)
    assert curve(make_spec("climbing", **WARM)) == curve(whole)


def test_on_its_way_a_trial_keeps_its_checkpoint_and_at_its_end_not(make_spec):
    spec = make_spec(spec=rung(0, 0.5))
    here(spec)
    assert (Path(spec.folder) / "checkpoint").is_dir()
    here(make_spec(spec=rung(1, 1.0, last=True)))
    assert not (Path(spec.folder) / "checkpoint").exists()


@pytest.mark.parametrize(
    ("unit", "budget", "steps"),
    [
        ("steps", 5, 5),
        ("steps", 500, 12),
        ("rows", 40, 5),
        ("rows", 41, 6),
        ("share", 0.01, 1),
        ("share", 1 / 3, 4),
    ],
)
def test_where_a_turn_ends(make_spec, unit, budget, steps):
    assert here(make_spec(spec=rung(0, budget, unit=unit))).metrics["steps"] == steps


def test_a_turn_tells_whether_its_learning_rate_was_still_rising(make_spec):
    found = here(make_spec(spec=rung(0, 2, unit="steps"), **WARM)).metrics
    assert (found["steps"], found["warmup_steps"]) == (2, 3)


def test_by_items_a_trial_is_trained_once_and_scored_on_more(make_spec, tmp_path):
    topic_task(tmp_path / "task")
    score = {
        "objective": [{"task": "toy_topics", "metric": "acc"}],
        "include_path": str(tmp_path / "task"),
        "record": ["toy_topics"],
    }
    turns = [rung(0, 10, unit="items"), rung(1, 20, unit="items"), rung(2, 80, unit="items", last=True)]
    specs = [make_spec(spec=turn, score=score) for turn in turns]
    results = [here(spec) for spec in specs]
    assert [found.metrics["steps"] for found in results] == [12, 12, 12]
    items = [
        np.load(Path(specs[0].folder) / name)["toy_topics/acc"]
        for name in ("items-0.npz", "items-1.npz", "items.npz")
    ]
    assert [len(one) for one in items] == [10, 20, 80]
    assert (items[2][:20] == items[1]).all()
    assert [found.values[0] for found in results] == pytest.approx([one.mean() for one in items])
    assert curve(specs[0])[-1][0] == 12
