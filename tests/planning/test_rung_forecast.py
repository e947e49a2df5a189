"""How many trials are expected to reach each rung before any has run, and what that costs."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from hpotune.config.schema.study_config import StudyConfig
from hpotune.planning.estimate import MeasuredTimes, estimates
from hpotune.planning.rung_forecast import MAX_SIMULATED, rung_forecast, trial_seconds
from hpotune.planning.simulator import simulate
from tests.fixtures.rung_rows import rung_config


def reached(study: StudyConfig) -> list[int]:
    found = rung_forecast(study, study.search.ladder)
    return [sum(rung in rungs for rungs in found) for rung in range(len(study.search.ladder))]


def test_third_of_each_rung_is_promoted():
    first, second, third = reached(rung_config(trials=27))
    assert first == 27
    assert 9 <= second <= 13
    assert 1 <= third <= second // 3
    assert reached(rung_config(trials=2)) == [2, 1, 1]


@pytest.mark.parametrize("parallel", [1, 8])
def test_hyperband_brackets_start_higher(parallel):
    found = rung_forecast(
        rung_config(trials=17, pruner="hyperband", parallel=parallel),
        rung_config(pruner="hyperband").search.ladder,
    )
    assert [rungs[0] for rungs in found].count(2) == 3
    assert all(rungs == list(range(rungs[0], rungs[-1] + 1)) for rungs in found)


def test_pruning_by_median_is_not_forecast():
    assert reached(rung_config(trials=5, pruner="median")) == [5] * 5


def test_large_studies_scale_a_small_forecast():
    assert len(rung_forecast(rung_config(trials=5000), rung_config().search.ladder)) == MAX_SIMULATED


def test_each_stage_loads_and_trains():
    ladder = rung_config().search.ladder
    assert trial_seconds(ladder, [0], trial_s=900, load_s=60) == pytest.approx(100)
    assert trial_seconds(ladder, [0, 1], trial_s=900, load_s=60) == pytest.approx(300 + 60)
    assert trial_seconds(ladder, [2], trial_s=900, load_s=60) == 900
    items = replace(ladder, unit="items", budgets=(10.0, 100.0))
    assert trial_seconds(items, [0], trial_s=900, load_s=60) == 900


def test_cost_follows_rungs_and_measured_times():
    study = rung_config(trials=27, parallel=3).model_copy(deep=True)
    study = study.model_copy(update={"plan": study.plan.model_copy(update={"trial_s": 900.0})})
    known = estimates(study, MeasuredTimes(), {})
    share = sum(study.search.ladder.share(rungs[-1]) for rungs in known.rungs_per_trial)
    outcome = simulate(study, known.simulation_times, begin=datetime(2026, 6, 1))
    trained = sum(span.end - span.start for span in outcome.spans if span.phase == "train")
    assert trained == pytest.approx(900 * share)
    assert 0.2 < share / 27 < 0.4
    assert estimates(study, MeasuredTimes(trials=[100.0, 300.0]), {}).simulation_times.trials_s == (
        100.0,
        300.0,
    )
