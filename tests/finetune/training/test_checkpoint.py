"""A trial that is killed or told to stop goes on where it was, and ends with the adapter of an unbroken one."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from hpotune.finetune.trial_errors import Paused
from tests.finetune.conftest import apart, here, start

EXACT = 1e-12
LONG = {"lora": {"lora_dropout": 0.2}, "train": {"max_steps": 80, "save_steps": 3}}


def lines(spec) -> list[dict]:
    file = Path(spec.folder) / "curve.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def after_step(spec, process, step: int) -> None:
    """Returns when the trial has logged the step."""
    while len(lines(spec)) < step:
        assert process.poll() is None, (Path(spec.folder) / "log.txt").read_text()
        time.sleep(0.01)


def stop_at(step: int):
    """A signal that comes while that step is made; two looks come before the first one, at the data and the base."""
    calls = iter(range(-1, 1000))
    return lambda: next(calls) >= step


def test_a_killed_trial_ends_as_an_unbroken_one(make_spec):
    unbroken, killed = make_spec("unbroken", **LONG), make_spec("killed", **LONG)
    process = start(killed)
    after_step(killed, process, 8)
    process.kill()
    process.wait()
    assert 8 <= len(lines(killed)) < 80
    one, other = here(unbroken), here(killed)
    assert apart(unbroken, killed) < EXACT
    assert other.values == pytest.approx(one.values, abs=EXACT)
    assert other.metrics["train_loss"] == pytest.approx(one.metrics["train_loss"], abs=EXACT)
    assert [line["step"] for line in lines(killed)] == list(range(1, 81))
    assert not (Path(killed.folder) / "checkpoint").exists()


def test_a_paused_trial_ends_as_an_unbroken_one(make_spec):
    unbroken, paused = make_spec("unbroken"), make_spec("paused")
    with pytest.raises(Paused):
        here(paused, stop=stop_at(5))
    assert [line["step"] for line in lines(paused)] == [1, 2, 3, 4, 5]
    here(paused), here(unbroken)
    assert apart(unbroken, paused) < EXACT


def test_a_curve_of_several_steps_a_line_is_that_of_an_unbroken_trial(make_spec):
    unbroken, paused = (make_spec(name, train={"logging_steps": 3}) for name in ("unbroken", "paused"))
    with pytest.raises(Paused):
        here(paused, stop=stop_at(5))
    here(paused), here(unbroken)
    assert [line["step"] for line in lines(paused)] == [3, 6, 9, 12]
    assert [line["loss"] for line in lines(paused)] == [line["loss"] for line in lines(unbroken)]


def test_a_signal_after_the_last_step_pauses_before_the_score(make_spec):
    spec = make_spec()
    with pytest.raises(Paused):
        here(spec, stop=stop_at(13))
    trained = (Path(spec.folder) / "curve.jsonl").read_text()
    assert here(spec).state == "finished"
    assert (Path(spec.folder) / "curve.jsonl").read_text() == trained


def test_a_checkpoint_of_another_training_is_not_taken(make_spec):
    with pytest.raises(Paused):
        here(make_spec("one"), stop=stop_at(5))
    other = make_spec("one", lora={"lora_alpha": 16})
    with pytest.warns(UserWarning, match="belongs to another training"):
        here(other)
    fresh = make_spec("fresh", lora={"lora_alpha": 16})
    here(fresh)
    assert apart(other, fresh) == 0
    assert [line["step"] for line in lines(other)] == list(range(1, 13))
