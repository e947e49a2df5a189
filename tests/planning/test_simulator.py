"""The simulated cluster against cases worked out by hand."""

from __future__ import annotations

import pytest

from hpotune.planning.estimate import SimulationTimes
from hpotune.planning.simulator import SimulationResult, simulate
from hpotune.records.jobs import JobSpec
from tests.fixtures.simulations import BEGIN, SPREAD, TEN, config


def played(
    *args: object, times: SimulationTimes = TEN, budget: dict | None = None, **resources: object
) -> SimulationResult:
    return simulate(config(*args, budget=budget, **resources), times, begin=BEGIN)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "size", "wall_s", "held_s", "jobs", "arrays"),
    [
        # queue 5, start 3, then four times 12 in one job
        ("sequential", "auto", 5 + 3 + 4 * 12, 3 + 4 * 12, 1, 1),
        # one element after another, 1 s between them: the throttle of the array is 1
        ("sequential", 1, 5 + 4 * 15 + 3 * 1, 4 * 15, 4, 1),
        ("sequential", 2, 5 + 2 * 27 + 1, 2 * 27, 2, 1),
        # two rounds: the second is submitted by a step that waited 5 and worked 4, and waits 5 itself
        ("batch", 1, (5 + 15) + (5 + 4) + (5 + 15), 4 * 15, 4, 2),
        # both trials of a round end together, so that nobody waits at the barrier
        ("batch", "auto", 5 + 3 + 2 * 12, 2 * 27, 2, 1),
        ("async", 1, 5 + 15 + 1 + 15, 4 * 15, 4, 1),
        ("async", "auto", 5 + 3 + 2 * 12, 2 * 27, 2, 1),
    ],
)
def test_four_trials_two_at_once(
    mode: str, size: int | str, wall_s: float, held_s: float, jobs: int, arrays: int
) -> None:
    outcome = played(4, 2, mode, size)
    assert (outcome.trials, outcome.jobs, outcome.arrays) == (4, jobs, arrays)
    assert outcome.wall_s == pytest.approx(wall_s)
    assert outcome.held_s == pytest.approx(held_s)
    assert outcome.gpu_hours == pytest.approx(held_s * 2 / 3600)
    assert outcome.idle == pytest.approx(1 - 40 / held_s)


@pytest.mark.parametrize("mode", ["sequential", "batch", "async"])
@pytest.mark.parametrize("size", [1, 3, "auto"])
def test_finished_trials_may_be_left_out(mode: str, size: int | str) -> None:
    """With a budget of time, which is never used up, all trials are looked at: the result is the same."""
    short, long = (
        played(50, 4, mode, size, times=SPREAD, budget=budget, time="0:02:00")
        for budget in (None, {"wall_time": "100-00:00:00"})
    )
    assert short.trials == 50
    assert (short.wall_s, short.held_s, short.spans) == (long.wall_s, long.held_s, long.spans)


def test_worker_polls_for_its_round() -> None:
    outcome = played(4, 2, "batch", "auto", times=SPREAD)
    # trial 1 ends at 30; the worker of trial 0, free since 20, looks at 25 and at 30
    waits = [(span.job, span.start, span.end) for span in outcome.spans if span.phase == "idle"]
    assert waits == [("1_0", 20, 30)]
    assert outcome.wall_s == 30 + 12


def test_asynchronous_workers_do_not_wait() -> None:
    outcome = played(4, 2, "async", "auto", times=SPREAD)
    # worker 0: trials 0, 2 and 3 (20, 32, 44); worker 1: trial 1 (30), then none is left but 3, taken at 30
    assert sorted((s.trial, s.end) for s in outcome.spans if s.phase == "train") == [
        (0, 20),
        (1, 30),
        (2, 32),
        (3, 42),
    ]
    assert outcome.wall_s == 42


def test_job_takes_only_fitting_trials() -> None:
    # 3 min, signalled to end after 2: 3 + 12 n fits 9 trials, less 30 s of margin 7; the rest goes to a second job
    outcome = played(12, 1, "async", "auto", time="3:00")
    by_job = [
        len([s for s in outcome.spans if s.phase == "train" and s.job == job]) for job in ("1_0", "2_0")
    ]
    assert by_job == [7, 5]
    assert outcome.trials == 12


def test_long_trial_continues_in_next_job() -> None:
    outcome = played(
        1,
        1,
        "async",
        "auto",
        times=SimulationTimes(trials_s=(300,), load_s=2, start_s=3),
        time="4:00",
    )
    trained = [(s.job, s.end - s.start) for s in outcome.spans if s.phase == "train"]
    # signalled to end at 180: 3 of start, 2 of loading, 175 trained; the next job has the other 125
    assert trained == [("1_0", 175), ("2_0", 125)]
    assert outcome.trials == 1


def test_too_short_job_ends_simulation() -> None:
    outcome = played(
        2,
        1,
        "async",
        "auto",
        times=SimulationTimes(trials_s=(300,), load_s=200, start_s=3),
        time="3:00",
    )
    assert outcome.trials == 0
    assert "too short" in outcome.reason


def test_study_ends_within_gpu_hours() -> None:
    # 12 s on 2 GPUs are 24 / 3600: the fourth trial would exceed 80 / 3600
    outcome = played(9, 1, "async", "auto", budget={"gpu_hours": 80 / 3600})
    assert outcome.trials == 3
    assert "GPU-hours" in outcome.reason


@pytest.mark.parametrize("mode", ["sequential", "batch", "async"])
@pytest.mark.parametrize("size", [1, 2, 3, "auto"])
@pytest.mark.parametrize("follow_up", [True, "worker"])
def test_every_trial_is_simulated_once(mode: str, size: int | str, follow_up: object) -> None:
    outcome = played(11, 3, mode, size, times=SPREAD, follow_up=follow_up)
    trained = [span for span in outcome.spans if span.phase == "train"]
    assert sorted(span.trial for span in trained if span.trial is not None) == list(range(11))
    at_once = max(sum(o.start <= s.start < o.end for o in trained) for s in trained)
    assert at_once <= (1 if mode == "sequential" else 3)
    assert outcome.trials == 11


def test_timeouts_without_follow_up_stay_unfinished() -> None:
    outcome = played(12, 1, "async", "auto", time="3:00", follow_up=False)
    assert (outcome.trials, outcome.steps, outcome.reason) == (7, 0, "")


def test_cluster_limits_concurrent_jobs() -> None:
    outcome = simulate(config(4, 4, "async", 1), TEN, begin=BEGIN, slots=2)
    assert outcome.wall_s == 5 + 15 + 1 + 15


def test_array_slots_start_jobs_independently() -> None:
    times = SimulationTimes(trials_s=(4, 6, 8, 10), gap_s=5)
    outcome = simulate(config(6, 4, "async", 1), times, begin=BEGIN)
    started = {span.trial: span.start for span in outcome.spans if span.phase == "train"}
    assert started == {0: 0, 1: 0, 2: 0, 3: 0, 4: 4 + 5, 5: 6 + 5}


def test_waiting_worker_ends_with_the_budget() -> None:
    # both trials of the first round cost 12 and 22 s on 2 GPUs: nothing is left for a third
    outcome = played(8, 2, "batch", "auto", times=SPREAD, budget={"gpu_hours": 75 / 3600})
    assert outcome.trials == 2
    # they start at 8; one ends at 30, when the budget is looked at, the other at its next look
    assert outcome.held_s == 2 * (30 - 5)


def test_arrays_are_split_at_cluster_limit() -> None:
    def halves(spec: JobSpec) -> list[JobSpec]:
        return [JobSpec(count=2, throttle=1, trials=1), JobSpec(count=2, throttle=1, trials=1)]

    outcome = simulate(config(4, 2, "async", 1), TEN, begin=BEGIN, split=halves)
    assert (outcome.arrays, outcome.jobs, outcome.trials) == (2, 4, 4)


def test_the_baseline_has_its_own_length() -> None:
    made = config(2, 1, "async", "auto").model_copy(update={"model": object(), "python": None})
    outcome = simulate(made, SimulationTimes(trials_s=(10,), baseline_s=1), begin=BEGIN)
    assert [s.end - s.start for s in outcome.spans if s.phase == "train"] == [1, 10]


def test_twice_the_same_gives_the_same() -> None:
    assert played(11, 3, "async", 2, times=SPREAD) == played(11, 3, "async", 2, times=SPREAD)
