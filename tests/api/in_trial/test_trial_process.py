"""`hpotune.params`, `report`, `checkpoint_dir`, `last_checkpoint` and `should_stop`, inside a trial and outside."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest

import hpotune
from hpotune.api.in_trial.trial_process import number_of
from hpotune.workspace.trial_reports import read_reports, was_paused
from tests.api.in_trial.conftest import lines


def test_outside_nothing_is_done(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert hpotune.params({"lr": 0.1}) == {"lr": 0.1}
    assert hpotune.params() == {}
    hpotune.report({"loss": 1.0}, step=1, steps=2)
    assert (hpotune.should_stop(), hpotune.checkpoint_dir(), hpotune.last_checkpoint()) == (False, None, None)
    assert list(tmp_path.iterdir()) == []


def test_params_are_over_the_defaults(as_trial):
    as_trial(PARAMS=json.dumps({"lr": 0.5, "optimizer": {"name": "sgd"}, "a.b": 1}))
    default = {"lr": 0.1, "optimizer": {"name": "adam", "momentum": 0.9}, "epochs": 3}
    expected = {"lr": 0.5, "optimizer": {"name": "sgd", "momentum": 0.9}, "a.b": 1, "epochs": 3}
    assert hpotune.params(default) == expected


def test_reports_are_lines_with_steps(as_trial, tmp_path, capsys):
    import numpy

    as_trial()
    hpotune.report({"loss": numpy.float32(0.5), "note": "text", "flag": True}, step=numpy.int64(3), steps=10)
    hpotune.report({"loss": math.nan})
    [first, second] = read_reports(tmp_path)
    assert (dict(first.values), first.step, first.attempt) == ({"loss": 0.5}, 3, "a")
    assert (second.step, math.isnan(second.values["loss"])) == (None, True)
    assert json.loads((tmp_path / "progress.json").read_text())["steps"] == 10
    assert "'note' is not a number and is left out" in capsys.readouterr().err


def test_report_needs_a_mapping(as_trial):
    as_trial()
    with pytest.raises(TypeError, match=r"needs a mapping, such as \{'loss': 0.5\}, not 0.5"):
        hpotune.report(0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["1", b"1", True, None, [1], object()])
def test_others_are_no_numbers(value):
    assert number_of(value) is None


@pytest.mark.parametrize(
    ("unit", "budget", "steps", "stops_at"),
    [
        ("steps", "4", None, 4),
        ("share", repr(1 / 3), 9, 3),
        ("share", repr(1 / 9), 10, 2),
        ("share", "1.0", 5, 5),
    ],
)
def test_stops_at_its_rung(trial_of, unit, budget, steps, stops_at):
    trial = trial_of(HPOTUNE_RUNG_BUDGET=budget, HPOTUNE_RUNG_UNIT=unit)
    stopped = []
    for step in range(1, 7):
        trial.report({"loss": 1.0}, step=step, steps=steps)
        stopped.append(trial.should_stop())
    assert stopped == [step >= stops_at for step in range(1, 7)]


def test_shares_need_all_steps(trial_of):
    trial = trial_of(HPOTUNE_RUNG_BUDGET="0.5", HPOTUNE_RUNG_UNIT="share")
    assert not trial.should_stop()
    trial.report({"loss": 1.0}, step=1, steps=None)
    with pytest.raises(ValueError, match=r"call report\(…, step=STEP, steps=STEPS\)"):
        trial.should_stop()


def test_signal_stops_and_is_recorded(trial_of, tmp_path):
    trial = trial_of()
    assert not trial.should_stop()
    trial.signal.came = True
    assert [trial.should_stop(), trial.should_stop()] == [True, True]
    assert was_paused(tmp_path)
    assert lines(tmp_path / "stop.jsonl") == [{"paused": True}]


def test_ranks_stop_at_one_step(trial_of, tmp_path):
    """Rank 1 runs ahead of rank 0 by less than a step, or behind: both stop after the same one, only rank 0 writes."""
    for ahead in (False, True):
        (tmp_path / "stop.jsonl").write_text("")
        ranks = [trial_of(RANK=str(n), WORLD_SIZE="2") for n in (0, 1)]
        stopped = {0: [], 1: []}
        for step in range(1, 6):
            ranks[0].signal.came = ranks[0].signal.came or step == 3
            ranks[1].signal.came = True
            for rank in (1, 0) if ahead else (0, 1):
                ranks[rank].report({"loss": 1.0}, step=step, steps=9)
                stopped[rank].append(ranks[rank].should_stop())
        assert stopped == {0: [False, False, False, True, True], 1: [False, False, False, True, True]}
        assert lines(tmp_path / "stop.jsonl") == [{"stop_after": 3}, {"paused": True}]
    assert len(read_reports(tmp_path)) == 10


def test_last_checkpoint(as_trial, tmp_path):
    as_trial()
    folder = hpotune.checkpoint_dir()
    assert (folder, hpotune.last_checkpoint()) == (tmp_path / "checkpoint", None)
    for name in ("checkpoint-9", "checkpoint-10", "other", ".checkpoint-99"):
        (folder / name).mkdir()
    assert hpotune.last_checkpoint() == folder / "checkpoint-10"
    (folder / "complete.json").write_text('{"checkpoint": "checkpoint-9"}')
    assert hpotune.last_checkpoint() == folder / "checkpoint-9"
    (folder / "complete.json").write_text('{"checkpoint": null}')
    assert hpotune.last_checkpoint() is None


def test_checkpoint_of_the_parent(as_trial, tmp_path):
    (tmp_path / "parent" / "checkpoint" / "step-3").mkdir(parents=True)
    as_trial(PARENT_DIR=str(tmp_path / "parent"))
    assert hpotune.last_checkpoint() == tmp_path / "parent" / "checkpoint" / "step-3"


def test_nothing_heavy_is_loaded():
    code = (
        "import sys, hpotune; hpotune.params(); hpotune.report({}); hpotune.should_stop(); hpotune.last_checkpoint();"
        "print({m.split('.')[0] for m in sys.modules} "
        "& {'pydantic', 'optuna', 'numpy', 'torch', 'transformers', 'yaml'})"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"
