"""When a study stops: its budget, its goal, failures alike, a plateau."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import pytest

from hpotune.records.trial import RegretBound
from hpotune.schedule.stopping_criterion import stop_reason
from tests.fixtures.rung_rows import on, rung_config
from tests.fixtures.study_rows import NOW, RACE, alike, config, diverged, hours, row, rows

RACED = row(2, "stopped", race=RACE)


@pytest.mark.parametrize(
    ("budget", "trials", "reason"),
    [
        ({"trials": 3}, rows("ff"), None),
        ({"trials": 3}, rows("fxff"), "3 trials finished"),
        ({"trials": 3}, rows("ffs"), "3 trials finished, 1 of them pruned at a rung"),
        ({"trials": 3}, [*rows("ff"), RACED], "3 trials finished, 1 of them pruned while they were scored"),
        ({"trials": 3, "max_failed": 1}, rows("xf"), None),
        ({"trials": 3, "max_failed": 1}, rows("xx"), "2 trials failed (budget.max_failed: 1)"),
        ({"trials": 3, "max_failed": 0}, rows("x"), "1 trials failed"),
        ({"trials": 3, "max_failed": 1}, diverged(4), None),
        (
            {"trials": 3, "max_failed": 1},
            diverged(5),
            "5 trials failed, 5 of them by a value that is NaN or infinite; narrow",
        ),
        ({"trials": 9, "gpu_hours": 2}, [row(0, "finished", attempts=hours(1.0))], None),
        (
            {"trials": 9, "gpu_hours": 2},
            [row(0, "finished", attempts=hours(1.5))],
            "1.50 GPU-hours used or taken",
        ),
        (
            {"trials": 9, "gpu_hours": 2},
            [row(n, state, attempts=hours(1.0)) for n, state in enumerate(("finished", "failed"))],
            "2.00 GPU-hours used",
        ),
        (
            {"trials": 9, "gpu_hours": 2.5},
            [row(0, "finished", attempts=hours(1.0)), row(1, "running", start=NOW.timestamp() - 1800)],
            "2.00 GPU-hours used or taken",
        ),
        ({"trials": 9, "wall_time": "2:00:00"}, [row(0, "running", start=NOW.timestamp() - 7100)], None),
        (
            {"trials": 9, "wall_time": "2:00:00"},
            [row(0, "finished", attempts=hours(2.5))],
            "2:00:00 have passed since the first trial started",
        ),
        ({"trials": 9}, alike("user", "bad key 7", "bad key 9"), None),
        (
            {"trials": 9},
            alike("user", "bad key 7", "bad key 9", "bad key 8"),
            "3 trials in a row failed alike",
        ),
        ({"trials": 9}, alike("user", "bad key", "no file", "bad key"), None),
        ({"trials": 9}, alike("oom", "no", "no", "no"), None),
        ({"trials": 9, "max_failed": 1}, alike("node", "ECC 1", "ECC 2"), None),
        (
            {"trials": 9},
            alike("node", "ECC 1", "ECC 2", "ECC 3"),
            "3 trials in a row failed alike (node: ECC",
        ),
        (
            {"trials": 9},
            [*alike("user", "a", "a"), row(2, "finished", end=1.5), *alike("user", "a", first=3)],
            None,
        ),
        ({"trials": 9, "max_failed": 1}, alike("user", "a", "a", "a", forgiven=True), None),
        ({"trials": 3, "until": date(2026, 6, 1)}, [], None),
        ({"trials": 3, "until": date(2026, 5, 31)}, [], "it is past 2026-05-31"),
        ({"trials": 3, "until": datetime(2026, 6, 1, 12)}, [], "it is past"),
        ({"trials": 3, "until": datetime(2026, 6, 1, 12, 1)}, [], None),
    ],
)
def test_stop_reason_names_the_budget(budget, trials, reason):
    found = stop_reason(config(budget, resources={"gpus": 1}), trials, now=NOW)
    assert found is None if reason is None else found.text.startswith(reason)


def test_until_respects_time_zones():
    past = (NOW.astimezone() - timedelta(minutes=1)).astimezone(timezone(timedelta(hours=9)))
    assert stop_reason(config({"trials": 1, "until": past}), [], now=NOW)


@pytest.mark.parametrize(
    ("kind", "value", "stops"), [("trial", 0.5, True), ("trial", 0.51, False), ("baseline", 0.5, False)]
)
def test_goal_is_reached_by_a_trial(kind, value, stops):
    settings = config({"trials": 3}, goal=0.5)
    tried = [row(0, "finished", value=value, kind=kind)]
    reason = stop_reason(settings, tried, now=NOW)
    assert (reason is not None and reason.kind == "goal_reached") == stops
    assert reason is None or reason.text == "trial 0 reached the goal"


def test_gpu_hours_spare_running_trials():
    trials = [row(0, "finished", attempts=hours(1.0)), row(1, "running", start=NOW.timestamp() - 1800)]
    settings = config({"trials": 9, "gpu_hours": 2.5}, resources={"gpus": 1})
    assert stop_reason(settings, trials, now=NOW)
    assert stop_reason(settings, trials, now=NOW, starting=False) is None


@pytest.mark.parametrize(
    ("regrets", "ends"),
    [
        ((), False),
        ((0.01,), False),
        ((0.3, 0.01), False),
        ((0.3, 0.05, 0.02), True),
        ((0.01, 0.02, 0.3), False),
    ],
)
def test_plateau_needs_two_small_bounds(regrets, ends):
    looks = [RegretBound(regret=regret, gain=0.0, ahead=10, trials=20) for regret in regrets]
    seen = [row(number, "finished", regret_bound=look) for number, look in enumerate(looks)]
    blind = [row(50 + number, "running") for number in range(3)]
    settings = config({"trials": 200, "plateau": 0.05})
    reason = stop_reason(settings, [*seen, *blind], now=NOW)
    assert (reason is not None) == ends
    assert not reason or "by more than 0.02 (95 %; budget.plateau: 0.05)" in reason.text
    assert stop_reason(config({"trials": 200}), [*seen, *blind], now=NOW) is None


def test_pruned_trials_count_for_budget():
    rows = [on(0, 9.0, 9.0, 9.0, state="finished"), on(1, 1.0, state="stopped")]
    reason = stop_reason(rung_config(trials=2), rows, now=NOW)
    assert reason is not None
    assert (reason.kind, reason.text) == ("budget_used", "2 trials finished, 1 of them pruned at a rung")
    assert stop_reason(rung_config(trials=3), rows, now=NOW) is None
