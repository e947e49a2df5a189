"""A trial trained rung by rung: where each stage ends, what it is scored on, and that nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.tiny_model import topic_task
from tests.fixtures.tiny_trials import adapter_distance, run_here

EXACT = 1e-12
WARM = {"train": {"warmup_steps": 3, "lr_scheduler_type": "cosine"}, "lora": {"lora_dropout": 0.2}}


def rung(index: int, budget: float, *, unit: str = "share", last: bool = False) -> dict:
    return {"rung": {"index": index, "unit": unit, "budget": budget, "last": last}}


def curve(spec) -> list[tuple[int, float]]:
    lines = (Path(spec.folder) / "curve.jsonl").read_text().splitlines()
    return [(line["step"], line["lr"]) for line in map(json.loads, lines)]


def test_stages_equal_uninterrupted_training(make_spec):
    whole = make_spec("whole", **WARM)
    stages = [rung(0, 1 / 9), rung(1, 1 / 3), rung(2, 1.0, last=True)]
    results = [run_here(make_spec("staged", spec=stage, **WARM)) for stage in stages]
    straight = run_here(whole)
    assert [(found.rung, found.metrics["steps"]) for found in results] == [(0, 2), (1, 4), (2, 12)]
    assert adapter_distance(whole, make_spec("staged", **WARM)) < EXACT
    assert results[2].values == pytest.approx(straight.values, abs=EXACT)
    assert results[2].metrics["train_loss"] == pytest.approx(straight.metrics["train_loss"], abs=EXACT)
    assert curve(make_spec("staged", **WARM)) == curve(whole)


def test_last_rung_deletes_checkpoint(make_spec):
    spec = make_spec(spec=rung(0, 0.5))
    run_here(spec)
    assert (Path(spec.folder) / "checkpoint").is_dir()
    run_here(make_spec(spec=rung(1, 1.0, last=True)))
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
def test_last_step_of_stage(make_spec, unit, budget, steps):
    assert run_here(make_spec(spec=rung(0, budget, unit=unit))).metrics["steps"] == steps


def test_stage_records_warmup_steps(make_spec):
    found = run_here(make_spec(spec=rung(0, 2, unit="steps"), **WARM)).metrics
    assert (found["steps"], found["warmup_steps"]) == (2, 3)


def test_item_rungs_train_once(make_spec, tmp_path):
    topic_task(tmp_path / "task")
    score = {
        "objective": [{"task": "toy_topics", "metric": "acc"}],
        "include_path": str(tmp_path / "task"),
        "record": ["toy_topics"],
    }
    stages = [rung(0, 10, unit="items"), rung(1, 20, unit="items"), rung(2, 80, unit="items", last=True)]
    specs = [make_spec(spec=stage, score=score) for stage in stages]
    results = [run_here(spec) for spec in specs]
    assert [found.metrics["steps"] for found in results] == [12, 12, 12]
    items = [
        np.load(Path(specs[0].folder) / name)["toy_topics/acc"]
        for name in ("items-0.npz", "items-1.npz", "items.npz")
    ]
    assert [len(one) for one in items] == [10, 20, 80]
    assert (items[2][:20] == items[1]).all()
    assert [found.values[0] for found in results] == pytest.approx([one.mean() for one in items])
    assert curve(specs[0])[-1][0] == 12
