"""Whether a trial fits into the remaining time of a job."""

from __future__ import annotations

import pytest

from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import Attempt, TrialRow, Worker
from hpotune.schedule.job_fit import MARGIN_S, expected_s, fits
from tests.fixtures.rung_rows import new, on, rung_config

WORKER = Worker(job="7_0", host="n1", pid=1)


def config(**plan: float) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "name": "s",
            "python": "f.py:f",
            "score": {"objective": [{"metric": "loss"}]},
            "budget": {"trials": 50},
            "resources": {"time": "1:00:00"},
            "plan": plan,
        }
    )


def row(*took: float, state: str = "finished", kind: str = "trial") -> TrialRow:
    attempts = tuple(Attempt(worker=WORKER, start=0, end=s, outcome="finished") for s in took)
    return TrialRow(number=0, kind=kind, state=state, params={}, attempts=attempts)


@pytest.mark.parametrize(
    ("plan", "rows", "seconds"),
    [
        ({}, [], None),
        ({"trial_s": 100, "load_s": 20}, [], 120),
        ({"trial_s": 100}, [row(7)], 7),
        ({}, [row(3, 4)], 7),
        ({}, [row(float(n)) for n in range(1, 11)], 9),
        ({}, [row(5, kind="baseline")], None),
        ({}, [row(5, state="failed")], None),
    ],
)
def test_expected_time_follows_finished_trials(plan, rows, seconds):
    assert expected_s(config(**plan), rows) == seconds


@pytest.mark.parametrize(
    ("waiting", "left_s", "taken"),
    [
        (row(state="waiting"), None, True),
        (row(state="waiting"), 600 + MARGIN_S, True),
        (row(state="waiting"), 599 + MARGIN_S, False),
        (row(400, state="waiting"), 200 + MARGIN_S, True),
        (row(400, state="waiting"), 199 + MARGIN_S, False),
    ],
)
def test_trial_fits_by_remaining_time(waiting, left_s, taken):
    assert fits(config(), [row(600)], waiting, left_s=left_s) == taken


@pytest.mark.parametrize(("left_s", "taken"), [(0.8 * (3600 - 180), True), (0.79 * (3600 - 180), False)])
def test_longest_trial_starts_in_new_job(left_s, taken):
    assert fits(config(), [row(7200)], row(state="waiting"), left_s=left_s) == taken


def test_unknown_trial_fits_until_last_seconds():
    waiting = row(state="waiting")
    assert fits(config(), [], waiting, left_s=MARGIN_S + 1)
    assert not fits(config(), [], waiting, left_s=MARGIN_S)


def test_expected_time_of_rung_is_measured():
    rows = [on(0, 1.0, 1.0), on(1, 1.0)]
    assert expected_s(rung_config(), rows, rung=0) == 4
    assert expected_s(rung_config(), rows, rung=1) == 5
    assert expected_s(rung_config(), rows, rung=2) is None
    assert expected_s(rung_config(), rows) == 5


def test_rung_fits_where_trial_does_not():
    study = rung_config().model_copy(
        update={"plan": rung_config().plan.model_copy(update={"trial_s": 900.0})}
    )
    study = study.model_copy(update={"resources": study.resources.model_copy(update={"time": "10:00:00"})})
    assert fits(study, [], new(0), left_s=200)
    assert not fits(study, [], on(0, 1.0, 1.0), left_s=200)
