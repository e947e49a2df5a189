"""How long the rest of a study takes, worked out by hand: an hour a trial, two at a time, two GPUs each."""

from __future__ import annotations

from datetime import timedelta

import pytest

from hpotune.records.jobs import JobRow
from hpotune.reporting.views.forecast import Forecast
from tests.fixtures.report_rows import (
    ASHA,
    NOW,
    failed,
    finished,
    paused,
    running,
    scored_at_rungs,
    status_of,
)


def test_remaining_trials_run_side_by_side() -> None:
    """One trial has run for 10 min, one for half an hour, four are left: 0.83 + 0.5 + 4 h of work."""
    rows = [finished(0), finished(1), finished(2), finished(3), running(4), paused(5)]
    ahead = status_of(rows).forecast
    assert ahead.trials_left == 6
    assert ahead.gpu_hours == pytest.approx(2 * (50 / 60 + 0.5 + 4), abs=1e-3)
    # worker A: 50 min + 60 + 60 = 170; worker B: 30 + 60 + 60 = 150 min
    assert ahead.seconds == pytest.approx(170 * 60)
    assert ahead.end == (NOW + timedelta(minutes=170)).isoformat()


def test_silent_trial_counts_in_full() -> None:
    rows = [*(finished(n) for n in range(9)), running(9, seconds=3000, silent=3000)]
    assert status_of(rows).forecast.seconds == pytest.approx(3600)


def test_batch_waits_for_last_of_round() -> None:
    batch = {"execution": {"mode": "batch"}, "budget": {"trials": 6, "parallel": 2}}
    ahead = status_of([finished(0), running(1)], **batch).forecast
    assert ahead.seconds == pytest.approx((50 + 120) * 60)


def test_pending_jobs_delay_the_end() -> None:
    soon = NOW + timedelta(hours=3)
    jobs = [JobRow(id="5_0", state="PENDING", reason="Priority", estimate=soon.isoformat())]
    ahead = status_of([finished(n) for n in range(9)], jobs).forecast
    assert ahead.end == (soon + timedelta(hours=1)).isoformat()


def test_forecast_is_unknown_before_first_trial() -> None:
    ahead = status_of([running(0)]).forecast
    assert ahead == Forecast(trials_left=10, seconds=None, gpu_hours=None, end=None)


def test_stopped_study_expects_running_trials_only() -> None:
    rows = [*[failed(n, "user") for n in range(7)], finished(7), running(8)]
    assert status_of(rows).forecast.trials_left == 1


def test_rungs_use_mean_time_of_trials() -> None:
    rows = [
        scored_at_rungs(0, 0.9, 0.9),
        scored_at_rungs(1, 0.5, state="stopped"),
        scored_at_rungs(2, 0.1),
    ]
    ahead = status_of(rows, **ASHA).forecast
    assert ahead.trials_left == 7
    assert ahead.seconds == pytest.approx(4 * 800, abs=0.1)  # two at a time, of 800 s on average
