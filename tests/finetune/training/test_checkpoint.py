"""A trial that is killed or paused is resumed from its checkpoint, and ends with the same adapter."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpotune.finetune.trial_errors import Paused
from tests.fixtures.tiny_trials import adapter_distance, curve_lines, run_here, start_trial, wait_for_step

EXACT = 1e-12
LONG = {"lora": {"lora_dropout": 0.2}, "train": {"max_steps": 80, "save_steps": 3}}


def stop_at(step: int):
    """A stop request during that step; the pipeline asks twice before the first step, after the data and the model."""
    calls = iter(range(-1, 1000))
    return lambda: next(calls) >= step


def test_killed_trial_is_resumed_exactly(make_spec):
    unbroken, killed = make_spec("unbroken", **LONG), make_spec("killed", **LONG)
    process = start_trial(killed)
    wait_for_step(killed, process, 8)
    process.kill()
    process.wait()
    assert 8 <= len(curve_lines(killed)) < 80
    one, other = run_here(unbroken), run_here(killed)
    assert adapter_distance(unbroken, killed) < EXACT
    assert other.values == pytest.approx(one.values, abs=EXACT)
    assert other.metrics["train_loss"] == pytest.approx(one.metrics["train_loss"], abs=EXACT)
    assert [line["step"] for line in curve_lines(killed)] == list(range(1, 81))
    assert not (Path(killed.folder) / "checkpoint").exists()


def test_paused_trial_is_resumed_exactly(make_spec):
    unbroken, paused = make_spec("unbroken"), make_spec("paused")
    with pytest.raises(Paused):
        run_here(paused, stop_requested=stop_at(5))
    assert [line["step"] for line in curve_lines(paused)] == [1, 2, 3, 4, 5]
    run_here(paused), run_here(unbroken)
    assert adapter_distance(unbroken, paused) < EXACT


def test_resumed_curve_has_same_lines(make_spec):
    unbroken, paused = (make_spec(name, train={"logging_steps": 3}) for name in ("unbroken", "paused"))
    with pytest.raises(Paused):
        run_here(paused, stop_requested=stop_at(5))
    run_here(paused), run_here(unbroken)
    assert [line["step"] for line in curve_lines(paused)] == [3, 6, 9, 12]
    assert [line["loss"] for line in curve_lines(paused)] == [line["loss"] for line in curve_lines(unbroken)]


def test_signal_after_training_pauses(make_spec):
    spec = make_spec()
    with pytest.raises(Paused):
        run_here(spec, stop_requested=stop_at(13))
    trained = (Path(spec.folder) / "curve.jsonl").read_text()
    assert run_here(spec).state == "finished"
    assert (Path(spec.folder) / "curve.jsonl").read_text() == trained


def test_foreign_checkpoint_is_ignored(make_spec):
    with pytest.raises(Paused):
        run_here(make_spec("one"), stop_requested=stop_at(5))
    other = make_spec("one", lora={"lora_alpha": 16})
    with pytest.warns(UserWarning, match="belongs to another training"):
        run_here(other)
    fresh = make_spec("fresh", lora={"lora_alpha": 16})
    run_here(fresh)
    assert adapter_distance(other, fresh) == 0
    assert [line["step"] for line in curve_lines(other)] == list(range(1, 13))
