"""Which jobs are submitted next, as tables of rows and jobs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpotune.records.jobs import JobRow, JobSpec
from hpotune.schedule.next_jobs import next_jobs
from tests.fixtures.rung_rows import new, on, rung_config
from tests.fixtures.study_rows import NOW, config, jobs, row, rows

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
        (ARRAY, "fsfsfsfsfsff", "c" * 12, None),
        (ARRAY, "fsfsfsfs", "c" * 8, JobSpec(count=4, throttle=4, trials=1)),
        ({}, "fsfsfsfsff", "cccc", JobSpec(count=2, throttle=2)),
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
        "trials_that_lost_a_race_need_nothing_more",
        "trials_that_lost_a_race_take_no_element",
        "trials_that_lost_a_race_take_no_worker",
    ],
)
def test_missing_jobs_are_submitted(execution, trials, there, due):
    settings = config({"trials": 12, "parallel": 4}, execution)
    found = next_jobs(settings, rows(trials), jobs(there), now=NOW)
    assert found == ([due] if due else [])


def test_second_call_submits_nothing():
    settings = config({"trials": 12, "parallel": 4}, ARRAY)
    [due] = next_jobs(settings, [], [], now=NOW)
    assert next_jobs(settings, [], jobs("p" * due.count), now=NOW) == []


def test_concurrent_arrays_never_exceed_parallel():
    settings = config({"trials": 12, "parallel": 4}, ARRAY)
    trials = [row(n, "running", job=f"9_{n}") for n in range(2)] + [row(n, "failed") for n in range(2, 12)]
    trials += [row(n, "waiting") for n in range(12, 22)]
    settings = settings.model_copy(update={"budget": settings.budget.model_copy(update={"max_failed": 99})})
    [due] = next_jobs(settings, trials, jobs("rr"), now=NOW)
    assert (due.count, due.throttle) == (10, 2)


def test_running_element_promises_one_trial():
    settings = config({"trials": 3, "parallel": 4}, ARRAY)
    trials = [row(0, "running", job="9_0"), row(1, "failed", job="9_1"), row(2, "failed", job="9_2")]
    [due] = next_jobs(settings, trials, jobs("rcc"), now=NOW)
    assert due.count == 2


def test_follow_up_is_no_worker():
    step = JobRow(id="10_0", state="PENDING", kind="follow-up")
    assert next_jobs(config({"trials": 2, "parallel": 2}), [], [step], now=NOW)[0].count == 2


def running_jobs(count: int) -> list[JobRow]:
    return [JobRow(id=f"7_{index}", state="RUNNING") for index in range(count)]


def test_workers_without_work_are_not_submitted():
    study = rung_config(trials=4, parallel=4)
    resting = [on(0, 1.0), on(1, 2.0), replace(new(2), state="running", rung=0), on(3, 4.0, state="running")]
    assert next_jobs(study, resting, running_jobs(2), now=NOW) == []
    promotable = [on(0, 1.0), on(1, 2.0), on(2, 3.0), replace(new(3), state="running", rung=0)]
    [spec] = next_jobs(study, promotable, running_jobs(1), now=NOW)
    assert spec.count == 1


def test_rungs_start_all_parallel_workers():
    [spec] = next_jobs(rung_config(trials=9, parallel=4), [], [], now=NOW)
    assert spec.count == 4


def test_array_length_follows_remaining_stages():
    study = rung_config(trials=9, parallel=4)
    study = study.model_copy(update={"execution": study.execution.model_copy(update={"trials_per_job": 1})})
    [spec] = next_jobs(
        study, [on(n, float(n)) for n in range(6)] + [new(n) for n in range(6, 9)], [], now=NOW
    )
    assert (spec.count, spec.throttle, spec.trials) == (5, 4, 1)
