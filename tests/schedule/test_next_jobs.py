"""What is submitted next, by a table of rows and jobs."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import pytest

from hpotune.config.schema.study_config import Objective, StudyConfig
from hpotune.records.jobs import JobRow, JobSpec
from hpotune.records.trial import Attempt, Failure, RegretBound, TrialRow, Worker
from hpotune.schedule.best_trials import best_trials
from hpotune.schedule.next_jobs import next_jobs
from hpotune.schedule.retention import adapters_to_delete
from hpotune.schedule.stopping_criterion import stop_reason

NOW = datetime(2026, 6, 1, 12)
DOWN = [Objective(metric="loss")]
UP = [Objective(metric="value", direction="maximize")]


def config(
    budget: dict, execution: dict | None = None, goal: float | None = None, **sections: dict
) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "name": "s",
            "python": "f.py:f",
            "score": {"objective": [{"metric": "loss", "goal": goal}]},
            "budget": budget,
            "execution": execution or {},
            **sections,
        }
    )


def row(number: int, state: str, *, job: str | None = None, value: float | tuple = 1.0, **more) -> TrialRow:
    values = value if isinstance(value, tuple) else (value,)
    worker = Worker(job=job, host="h", pid=1) if job else None
    done = values if state == "finished" else ()
    return TrialRow(
        number=number,
        kind=more.pop("kind", "trial"),
        state=state,
        params={},
        values=done,
        worker=worker,
        **more,
    )


def rows(states: str) -> list[TrialRow]:
    """`f` finished, `x` failed, `r` running, `w` waiting."""
    words = {"f": "finished", "x": "failed", "r": "running", "w": "waiting"}
    return [row(index, words[state]) for index, state in enumerate(states)]


def diverged(count: int) -> list[TrialRow]:
    failure = Failure(cause="nan", message="the loss is nan")
    return [row(number, "failed", failure=failure) for number in range(count)]


def jobs(states: str, *, first: int = 0) -> list[JobRow]:
    """`p` pending, `r` running, `c` completed."""
    words = {"p": "PENDING", "r": "RUNNING", "c": "COMPLETED"}
    return [JobRow(id=f"9_{index}", state=words[state]) for index, state in enumerate(states, start=first)]


def hours(length: float) -> tuple[Attempt, ...]:
    """One attempt of one GPU that ended just now."""
    end = NOW.timestamp()
    worker = Worker(job="9_0", host="h", pid=1)
    return (Attempt(worker=worker, start=end - 3600 * length, end=end, outcome="finished", gpus=1),)


def alike(cause: str, *messages: str, first: int = 0, forgiven: bool = False) -> list[TrialRow]:
    """Failed trials, a second apart."""
    return [
        row(
            first + n,
            "failed",
            failure=Failure(cause=cause, message=message),
            end=float(first + n),
            forgiven=forgiven,
        )
        for n, message in enumerate(messages)
    ]


ARRAY = {"trials_per_job": 1}
BATCH = {"mode": "batch"}


@pytest.mark.parametrize(
    ("execution", "trials", "there", "due"),
    [
        (ARRAY, "", "", JobSpec(count=12, throttle=4, trials=1)),
        ({"trials_per_job": 5}, "", "", JobSpec(count=3, throttle=3, trials=5)),
        ({}, "", "", JobSpec(count=4, throttle=4)),
        ({"mode": "sequential"}, "", "", JobSpec(count=1, throttle=1)),
        ({"mode": "sequential", "trials_per_job": 1}, "", "", JobSpec(count=12, throttle=1, trials=1)),
        (BATCH, "", "", JobSpec(count=4, throttle=4)),
        ({**BATCH, **ARRAY}, "", "", JobSpec(count=4, throttle=4, trials=1)),
        ({**BATCH, **ARRAY}, "ffff", "cccc", JobSpec(count=4, throttle=4, trials=1)),
        ({**BATCH, **ARRAY}, "ffff", "cccr", None),
        ({**BATCH, **ARRAY}, "fffxww", "cccc", JobSpec(count=1, throttle=1, trials=1)),
        ({**BATCH, "trials_per_job": 2}, "f" * 8, "", JobSpec(count=2, throttle=2, trials=2)),
        ({**BATCH, **ARRAY}, "f" * 11, "", JobSpec(count=1, throttle=1, trials=1)),
        (ARRAY, "w" * 12, "p" * 12, None),
        ({}, "w" * 12, "p" * 4, None),
        (ARRAY, "fffffffffxxf", "c" * 12, JobSpec(count=2, throttle=2, trials=1)),
        ({}, "fffffffffxxf", "cccc", JobSpec(count=2, throttle=2)),
        ({}, "fffffffffffr", "rccc", None),
        ({}, "ffffffffrr", "rrcc", JobSpec(count=2, throttle=2)),
        ({}, "r" * 12, "r", None),
        (ARRAY, "ffffffffffff", "c" * 12, None),
    ],
    ids=[
        "an_array_of_one_trial_an_element_is_throttled_by_parallel",
        "jobs_of_five_trials_are_as_many_as_needed",
        "workers_are_as_many_as_parallel",
        "sequential_is_one_worker",
        "a_sequential_array_runs_one_element_at_a_time",
        "batch_has_workers_that_stay",
        "a_round_is_an_array",
        "the_next_round_follows_a_finished_one",
        "a_round_is_not_submitted_before_its_time",
        "a_failed_trial_of_a_round_gets_a_new_element",
        "a_round_of_jobs_of_two_trials",
        "the_last_round_is_what_is_left",
        "asking_again_while_an_array_waits_adds_nothing",
        "asking_again_while_workers_wait_adds_nothing",
        "failed_trials_get_new_elements",
        "failed_trials_get_new_workers",
        "no_worker_is_added_for_a_trial_that_runs",
        "ended_workers_are_replaced_beside_those_that_live",
        "no_worker_is_added_where_every_trial_runs",
        "a_finished_study_needs_nothing",
    ],
)
def test_what_is_missing_is_submitted(execution, trials, there, due):
    settings = config({"trials": 12, "parallel": 4}, execution)
    found = next_jobs(settings, rows(trials), jobs(there), now=NOW)
    assert found == ([due] if due else [])


def test_asking_twice_submits_nothing_the_second_time():
    settings = config({"trials": 12, "parallel": 4}, ARRAY)
    [due] = next_jobs(settings, [], [], now=NOW)
    assert next_jobs(settings, [], jobs("p" * due.count), now=NOW) == []


def test_arrays_beside_each_other_never_exceed_parallel():
    settings = config({"trials": 12, "parallel": 4}, ARRAY)
    trials = [row(n, "running", job=f"9_{n}") for n in range(2)] + [row(n, "failed") for n in range(2, 12)]
    trials += [row(n, "waiting") for n in range(12, 22)]
    settings = settings.model_copy(update={"budget": settings.budget.model_copy(update={"max_failed": 99})})
    [due] = next_jobs(settings, trials, jobs("rr"), now=NOW)
    assert (due.count, due.throttle) == (10, 2)


def test_a_running_element_that_has_had_its_trial_promises_no_other():
    settings = config({"trials": 3, "parallel": 4}, ARRAY)
    trials = [row(0, "running", job="9_0"), row(1, "failed", job="9_1"), row(2, "failed", job="9_2")]
    [due] = next_jobs(settings, trials, jobs("rcc"), now=NOW)
    assert due.count == 2


def test_a_follow_up_step_is_no_worker():
    step = JobRow(id="10_0", state="PENDING", kind="follow-up")
    assert next_jobs(config({"trials": 2, "parallel": 2}), [], [step], now=NOW)[0].count == 2


@pytest.mark.parametrize(
    ("budget", "trials", "reason"),
    [
        ({"trials": 3}, rows("ff"), None),
        ({"trials": 3}, rows("fxff"), "3 trials finished"),
        ({"trials": 3, "max_failed": 1}, rows("xf"), None),
        ({"trials": 3, "max_failed": 1}, rows("xx"), "2 trials failed (budget.max_failed: 1)"),
        ({"trials": 3, "max_failed": 0}, rows("x"), "1 trials failed"),
        ({"trials": 3, "max_failed": 1}, diverged(4), None),
        ({"trials": 3, "max_failed": 1}, diverged(5), "5 trials failed, 5 of them diverged; narrow"),
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
def test_a_study_stops_for_the_reason_that_its_budget_names(budget, trials, reason):
    found = stop_reason(config(budget, resources={"gpus": 1}), trials, now=NOW)
    assert found is None if reason is None else found.text.startswith(reason)


def test_a_moment_in_another_time_zone_is_compared_as_a_moment():
    past = (NOW.astimezone() - timedelta(minutes=1)).astimezone(timezone(timedelta(hours=9)))
    assert stop_reason(config({"trials": 1, "until": past}), [], now=NOW)


@pytest.mark.parametrize(
    ("kind", "value", "stops"), [("trial", 0.5, True), ("trial", 0.51, False), ("baseline", 0.5, False)]
)
def test_a_goal_is_reached_at_its_value_and_by_a_trial(kind, value, stops):
    settings = config({"trials": 3}, goal=0.5)
    tried = [row(0, "finished", value=value, kind=kind)]
    reason = stop_reason(settings, tried, now=NOW)
    assert (reason is not None and reason.kind == "goal_reached") == stops
    assert reason is None or reason.text == "trial 0 reached the goal"


def test_the_best_is_the_smallest_loss_and_the_earlier_of_equals():
    tried = [row(n, "finished", value=value) for n, value in enumerate((3.0, 1.0, 1.0))]
    assert [best.number for best in best_trials(DOWN, tried)] == [1]


def test_the_best_is_the_largest_value_where_more_is_better():
    tried = [row(n, "finished", value=value) for n, value in enumerate((3.0, 1.0))]
    assert [best.number for best in best_trials(UP, tried)] == [0]


def test_the_baseline_is_never_the_best():
    tried = [row(0, "finished", value=0.0, kind="baseline"), row(1, "finished", value=9.0)]
    assert [best.number for best in best_trials(DOWN, tried)] == [1]


def test_the_best_of_two_objectives_is_their_pareto_front():
    points = [(1.0, 1.0), (2.0, 3.0), (0.5, 0.5), (3.0, 2.0), (1.0, 3.0)]
    tried = [row(n, "finished", value=point) for n, point in enumerate(points)]
    assert sorted(best.number for best in best_trials([*DOWN, *UP], tried)) == [2, 4]


def test_adapters_of_all_but_the_best_are_dropped():
    tried = [row(n, "finished", value=value) for n, value in enumerate((2.0, 3.0, 1.0, 4.0))]
    assert adapters_to_delete(DOWN, tried, keep=2) == [1, 3]


def test_adapters_on_the_pareto_front_are_kept():
    points = [(2.0, 0.2), (2.0, 3.0), (0.5, 0.5)]
    tried = [row(n, "finished", value=point) for n, point in enumerate(points)]
    assert adapters_to_delete([*DOWN, *UP], tried, keep=1) == [0]


def test_nothing_is_kept_where_keep_is_zero():
    assert adapters_to_delete(DOWN, rows("ff"), keep=0) == [0, 1]


def test_that_one_more_trial_would_be_too_much_is_no_reason_to_stop_those_that_run():
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
def test_a_plateau_ends_the_study_after_two_looks_in_a_row(regrets, ends):
    looks = [RegretBound(regret=regret, gain=0.0, ahead=10, trials=20) for regret in regrets]
    seen = [row(number, "finished", regret_bound=look) for number, look in enumerate(looks)]
    blind = [row(50 + number, "running") for number in range(3)]
    settings = config({"trials": 200, "plateau": 0.05})
    reason = stop_reason(settings, [*seen, *blind], now=NOW)
    assert (reason is not None) == ends
    assert not reason or "by more than 0.02 (95 %; budget.plateau: 0.05)" in reason.text
    assert stop_reason(config({"trials": 200}), [*seen, *blind], now=NOW) is None
