"""The execution modes of a study compared, and which one is recommended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hpotune.planning.estimate import SimulationTimes
from hpotune.planning.mode_comparison import compare_modes, recommend
from tests.fixtures.simulations import BEGIN, SPREAD, config


def ways(times: SimulationTimes, *, trials: int = 24, size: int | str = "auto", mode: str = "async") -> list:
    return compare_modes(config(trials, 4, mode, size), times, begin=BEGIN)


def test_each_mode_has_three_sizes() -> None:
    found = [(way.mode, way.trials_per_job) for way in ways(SPREAD)]
    assert found == [
        (mode, size)
        for mode, few in (("sequential", 6), ("batch", 2), ("async", 2))
        for size in (1, few, "auto")
    ]


def test_mode_of_study_file_is_marked() -> None:
    found = [(way.mode, way.trials_per_job) for way in ways(SPREAD, size=5, mode="batch") if way.own]
    assert found == [("batch", 5)]


def test_slow_job_starts_favour_persistent_workers() -> None:
    chosen, why = recommend(ways(SimulationTimes(trials_s=(60,), start_s=600, queue_s=60)))
    assert (chosen.mode, chosen.trials_per_job) == ("async", "auto")
    assert "fewest GPU-hours" in why


def test_unfinished_modes_are_not_recommended() -> None:
    # without a follow-up nobody replaces a worker whose time is out: two stay for three trials each, of eight
    made = config(8, 2, "async", "auto", follow_up=False, time="10:00")
    found = compare_modes(made, SimulationTimes(trials_s=(150,), start_s=60, gap_s=1), begin=BEGIN)
    undone = [way.name for way in found if way.result.trials < 8]
    chosen, _ = recommend(found)
    assert "async, persistent workers" in undone
    assert chosen.name not in undone


def test_cheaper_but_slower_mode_is_mentioned() -> None:
    chosen, why = recommend(ways(SimulationTimes(trials_s=(10, 10, 10, 1000), start_s=1000), trials=8))
    cheapest = min(
        ways(SimulationTimes(trials_s=(10, 10, 10, 1000), start_s=1000), trials=8),
        key=lambda w: w.result.held_s,
    )
    assert chosen.result.wall_s < cheapest.result.wall_s
    assert "times as long" in why


def test_pictures_match_the_simulator() -> None:
    script = Path(__file__).parents[2] / "scripts" / "make-pictures"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_hyperqueue_offers_persistent_workers_only() -> None:
    study = config(24, 4, "async", "auto")
    tasks = study.execution.model_copy(update={"place": "hyperqueue"})
    found = compare_modes(study.model_copy(update={"execution": tasks}), SPREAD, begin=BEGIN)
    assert [(way.mode, way.trials_per_job) for way in found] == [
        (mode, "auto") for mode in ("sequential", "batch", "async")
    ]
