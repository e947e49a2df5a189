"""Who goes on from a rung: hand-worked ladders, whoever asks and in whatever order trials end."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.jobs import JobRow
from hpotune.records.trial import Attempt, Failure, RungScore, TrialRow, Worker
from hpotune.schedule.best_trials import best_trials
from hpotune.schedule.job_fit import expected_s, fits
from hpotune.schedule.next_jobs import next_jobs
from hpotune.schedule.promotion import (
    comparison_trial,
    first_rung,
    is_below_quantile,
    is_significantly_worse,
    next_rung,
    ranked,
    rung_decisions,
)
from hpotune.schedule.stopping_criterion import stop_reason
from tests.schedule.test_next_jobs import NOW

ME = Worker(job="7_0", host="n", pid=1)
GAIN = [{"metric": "gain", "direction": "maximize"}]


def config(*, trials: int = 27, objectives: list | None = None, parallel: int = 1, **search) -> StudyConfig:
    return StudyConfig.model_validate(
        {
            "name": "s",
            "python": "f.py:f",
            "score": {"objective": objectives or GAIN},
            "search": {"pruner": "asha", **search},
            "budget": {"trials": trials, "parallel": parallel},
        }
    )


def new(number: int) -> TrialRow:
    return TrialRow(number=number, kind="trial", state="waiting", params={})


def on(number: int, *values: float | tuple[float, ...], state: str = "waiting", first: int = 0) -> TrialRow:
    """A trial that has reached one rung for each value."""
    climbed = tuple(
        RungScore(rung=first + index, budget=1.0, values=value if isinstance(value, tuple) else (value,))
        for index, value in enumerate(values)
    )
    attempts = tuple(
        Attempt(worker=ME, start=10.0 * c.rung, end=10.0 * c.rung + 4 + c.rung, outcome="rung", rung=c.rung)
        for c in climbed
    )
    rung = climbed[-1].rung + (state == "running")
    return replace(new(number), state=state, rung=rung, rung_scores=climbed, attempts=attempts)


def asked(study: StudyConfig, rows: list[TrialRow]):
    return rung_decisions(study, study.search.ladder, rows)


class Play:
    """A study without a store: claims trials and records values in any order."""

    def __init__(self, study: StudyConfig, value) -> None:
        self.study, self.value = study, value
        self.rows = [new(number) for number in range(study.budget.trials)]
        self.cost = Counter()

    def take(self) -> int | None:
        """The trial that the next worker gets, now running."""
        found = asked(self.study, self.rows)
        for number in found.pruned:
            self.rows[number] = replace(self.rows[number], state="stopped")
        due = [*found.paused, *found.promoted, *found.new]
        if not due:
            return None
        row = self.rows[due[0]]
        rung = next_rung(self.study.search.ladder, row)
        self.rows[due[0]] = replace(row, state="running", rung=rung)
        return due[0]

    def tell(self, number: int) -> None:
        """Its value at the rung it was let onto."""
        row, ladder = self.rows[number], self.study.search.ladder
        value = self.value(number, row.rung)
        reached = RungScore(rung=row.rung, budget=ladder.budgets[row.rung], values=(value,))
        self.cost[row.rung] += 1
        last = row.rung == ladder.last
        self.rows[number] = replace(
            row, state="finished" if last else "waiting", rung_scores=(*row.rung_scores, reached),
            values=(value,) if last else (),
        )  # fmt: skip

    def run(self, *, workers: int = 1, seed: int = 0) -> Play:
        rng, busy = random.Random(seed), []
        while True:
            while len(busy) < workers and (number := self.take()) is not None:
                busy.append(number)
            if not busy:
                return self
            self.tell(busy.pop(rng.randrange(len(busy))))


def falling(number: int, rung: int) -> float:
    """Trial 0 is the best on every rung, so that nothing is promoted in error."""
    return -number


def test_of_27_trials_in_falling_order_9_and_then_3_go_on():
    play = Play(config(), falling).run()
    assert play.cost == {0: 27, 1: 9, 2: 3}
    assert [row.number for row in play.rows if row.state == "finished"] == [0, 1, 2]
    assert [row.number for row in play.rows if len(row.rung_scores) == 2] == [3, 4, 5, 6, 7, 8]
    assert Counter(row.state for row in play.rows) == {"finished": 3, "stopped": 24}


def test_the_first_third_is_promoted_as_soon_as_three_have_reached_the_rung():
    rows = [on(0, 5.0), on(1, 7.0), new(2)]
    assert asked(config(), rows).promoted == ()
    assert asked(config(), [*rows[:2], on(2, 6.0)]).promoted == (1,)


def test_the_highest_rung_goes_first_and_of_each_the_best():
    rows = [on(0, 9.0, 9.0), on(1, 8.0, 8.0), on(2, 7.0, 7.0), *(on(n, float(n)) for n in range(3, 9))]
    rows += [on(9, 9.5), on(10, 9.4), on(11, 0.0), new(12)]
    found = asked(config(), rows)
    assert found.promoted == (0, 9, 10)
    assert found.new == (12,)


def test_one_that_was_promoted_before_better_ones_came_is_not_promoted_twice():
    rows = [on(0, 3.0, state="running"), on(1, 2.0), on(2, 1.0), on(3, 9.0), on(4, 8.0), on(5, 0.5)]
    assert asked(config(), rows).promoted == (3, 4)


def test_an_interrupted_trial_goes_first_and_under_its_rung():
    paused = replace(
        on(1, 5.0), rung=1, attempts=(*on(1, 5.0).attempts, replace(on(1, 5.0).attempts[0], outcome="paused"))
    )
    rows = [on(0, 9.0), paused, on(2, 4.0), new(3)]
    found = asked(config(), rows)
    assert (found.paused, found.promoted, found.new) == ((1,), (0,), (3,))
    assert next_rung(config().search.ladder, paused) == 1
    assert next_rung(config().search.ladder, rows[0]) == 1


def test_a_trial_whose_worker_died_before_it_signed_is_taken_again():
    row = replace(new(0), rung=0)
    assert asked(config(trials=1), [row]).paused == (0,)


def test_a_failed_trial_keeps_its_place_on_the_rungs_it_reached():
    failed = replace(on(0, 9.0), state="failed", failure=Failure(cause="nan", message="x"))
    rows = [failed, on(1, 8.0), on(2, 7.0)]
    assert asked(config(), rows).promoted == ()
    more = [*rows, on(3, 1.0), on(4, 2.0), on(5, 3.0)]
    assert asked(config(), more).promoted == (1,)


def test_nothing_is_stopped_while_a_trial_runs_or_is_still_to_come():
    rows = [on(0, 9.0, 9.0, 9.0, state="finished"), on(1, 8.0), on(2, 7.0)]
    assert asked(config(trials=4), rows).pruned == ()
    assert asked(config(trials=4), [*rows, new(3)]).pruned == ()
    running = replace(new(3), state="running", rung=0)
    assert asked(config(trials=4), [*rows, running]).pruned == ()
    assert asked(config(trials=4), [*rows, on(3, 0.0)]).pruned == (1, 2, 3)


def test_of_too_few_trials_one_runs_to_its_end_all_the_same():
    play = Play(config(trials=2), falling).run()
    assert [row.state for row in play.rows] == ["finished", "stopped"]
    assert play.cost == {0: 2, 1: 1, 2: 1}


def test_where_all_that_ended_break_a_limit_the_best_of_those_that_rest_goes_on():
    ended = [replace(on(n, 9.0, 9.0, 9.0, state="finished"), breaks=("loss 3 > 2",)) for n in range(4)]
    rests = [breaking(on(4, 8.0)), on(5, 1.0), on(6, 2.0)]
    study = config(trials=4)
    assert asked(study, [ended[0], *rests]).promoted == (6,)
    assert asked(study, [replace(ended[0], breaks=()), *rests]).pruned == (4, 5, 6)
    assert asked(study, [ended[0], *map(breaking, rests)]).pruned == (4, 5, 6)
    assert asked(config(trials=6), [*ended[:3], *rests]).pruned == (4, 5, 6)  # three are enough


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("workers", [1, 4, 16])
def test_in_any_order_of_ends_each_trial_is_decided_and_the_best_is_found(workers, seed):
    order = random.Random(seed).sample(range(27), 27)
    play = Play(config(), lambda number, rung: order[number]).run(workers=workers, seed=seed)
    assert {row.state for row in play.rows} == {"finished", "stopped"}
    assert play.cost[0] == 27
    assert play.rows[order.index(26)].state == "finished"
    shares = play.cost[0] / 9 + play.cost[1] * 2 / 9 + play.cost[2] * 2 / 3
    assert shares < 27 / 2
    for rung in (0, 1):  # none beyond the best third and those that were promoted before better ones came
        there = sorted(
            (row.rung_scores[rung].values[0] for row in play.rows if len(row.rung_scores) > rung),
            reverse=True,
        )
        went_on = {row.rung_scores[rung].values[0] for row in play.rows if len(row.rung_scores) > rung + 1}
        assert went_on >= set(there[: len(there) // 3])


def test_two_objectives_are_ranked_by_front_and_then_by_crowding():
    senses = ["minimize", "minimize"]
    values = [(1, 5), (2, 2), (5, 1), (3, 3), (1.5, 4)]
    # front: 0 1 2 4; the ends first, then (2, 2): (5-1.5)/4 + (4-1)/4 = 1.6, (1.5, 4): (2-1)/4 + (5-2)/4 = 1
    assert ranked(values, senses) == [0, 2, 1, 4, 3]


def test_who_breaks_a_limit_ranks_behind_all_that_keep_it():
    values = [(1.0,), (2.0,), (3.0,), (4.0,)]
    assert ranked(values, ["maximize"], broken=[False, False, True, True]) == [1, 0, 3, 2]
    assert ranked([(1, 5), (0, 0), (5, 1)], ["minimize"] * 2, broken=[False, True, False]) == [0, 2, 1]


def breaking(row: TrialRow) -> TrialRow:
    return replace(row, rung_scores=tuple(replace(one, breaks=True) for one in row.rung_scores))


def test_a_trial_that_breaks_a_limit_goes_on_only_where_too_few_keep_it():
    rows = [breaking(on(0, 9.0)), on(1, 1.0), on(2, 2.0), *(new(n) for n in range(3, 27))]
    assert asked(config(), rows).promoted == (2,)
    assert asked(config(), [breaking(row) for row in rows]).promoted == (0,)


def test_nobody_is_held_against_a_trial_that_breaks_a_limit():
    rows = [breaking(on(9, 9.0, 9.0)), *(on(n, 1.0 * n, 1.0 * n) for n in range(6))]
    median = config(pruner="median").search.ladder
    assert not is_below_quantile(median, rows, rows[-1], "maximize")
    wilcoxon = replace(median, pruner="wilcoxon", options={"n_startup_trials": 4, "p_threshold": 0.1})
    assert comparison_trial(wilcoxon, rows, rows[1], "maximize") == 5
    assert comparison_trial(wilcoxon, [breaking(row) for row in rows[1:]], rows[1], "maximize") is None
    assert (
        comparison_trial(wilcoxon, [*map(breaking, rows[:3]), *rows[3:]], rows[3], "maximize") is None
    )  # three others
    assert [row.number for row in best_trials(config().score.objective, rows)] == [5]


def test_of_two_objectives_the_front_is_promoted():
    both = [{"metric": "a", "direction": "minimize"}, {"metric": "b", "direction": "minimize"}]
    rows = [
        on(0, (3.0, 3.0)),
        on(1, (1.0, 5.0)),
        on(2, (5.0, 1.0)),
        on(3, (2.0, 2.0)),
        on(4, (6, 6)),
        on(5, (7, 7)),
    ]
    assert set(asked(config(objectives=both), rows).promoted) == {1, 2}
    assert 3 in asked(config(objectives=both, pruner_options={"eta": 2}), rows).promoted


def test_brackets_of_hyperband_are_filled_as_often_as_the_paper_says():
    ladder = config(pruner="hyperband").search.ladder
    assert Counter(first_rung(ladder, number) for number in range(17)) == {0: 9, 1: 5, 2: 3}
    assert [first_rung(ladder, number) for number in range(17, 34)] == [
        first_rung(ladder, n) for n in range(17)
    ]


def test_brackets_of_hyperband_do_not_compete():
    study = config(pruner="hyperband")
    ladder = study.search.ladder
    low = [n for n in range(17) if first_rung(ladder, n) == 0]
    middle = [n for n in range(17) if first_rung(ladder, n) == 1]
    rows = {n: new(n) for n in range(17)}
    rows |= {n: on(n, float(n)) for n in low[:3]} | {n: on(n, 100.0 + n, first=1) for n in middle[:2]}
    assert asked(study, list(rows.values())).promoted == (low[2],)
    rows[middle[2]] = on(middle[2], 1.0, first=1)
    assert asked(study, list(rows.values())).promoted == (middle[1], low[2])


def test_hyperband_runs_some_trials_to_their_end_at_once():
    play = Play(config(pruner="hyperband", trials=17), falling).run()
    straight = [row for row in play.rows if [c.rung for c in row.rung_scores] == [2]]
    assert len(straight) == 3
    assert all(row.state == "finished" for row in straight)


MEDIAN = {"pruner": "median"}


def behind(rows: list[TrialRow], row: TrialRow, *, warm: bool = False, **search) -> bool:
    ladder = config(**search).search.ladder
    return is_below_quantile(ladder, [*rows, row], row, "maximize", warm=warm)


def test_a_trial_below_the_median_of_four_earlier_ones_ends_there():
    rows = [on(n, value) for n, value in enumerate([1.0, 2.0, 3.0, 4.0])]
    assert behind(rows, on(9, 2.4), **MEDIAN)
    assert not behind(rows, on(9, 2.5), **MEDIAN)
    assert not behind(rows[:3], on(9, 0.0), **MEDIAN)


def test_its_best_value_so_far_counts_as_in_optuna():
    rows = [on(n, 0.0, value) for n, value in enumerate([1.0, 2.0, 3.0, 4.0])]
    assert not behind(rows, on(9, 3.0, 0.0), **MEDIAN)
    assert behind(rows, on(9, 2.0, 2.0), **MEDIAN)


def test_percentile_lets_the_best_third_go_on():
    rows = [on(n, float(n)) for n in range(7)]
    assert behind(rows, on(9, 3.9), pruner="percentile")
    assert not behind(rows, on(9, 4.1), pruner="percentile")


def test_before_a_fifth_of_the_run_or_while_it_warms_up_nothing_is_stopped():
    rows = [on(n, 9.0) for n in range(5)]
    assert not behind(rows, on(9, 0.0), **MEDIAN, rungs=[0.1, 0.5, 1])
    assert behind(rows, on(9, 0.0), **MEDIAN, rungs=[0.2, 0.5, 1])
    assert not behind(rows, on(9, 0.0), **MEDIAN, warm=True)


def test_who_was_not_stopped_at_a_median_rung_goes_straight_on():
    rows = [on(0, 1.0), on(1, 1.0, 1.0), new(2)]
    assert asked(config(**MEDIAN), rows).promoted == (1, 0)


def test_wilcoxon_holds_a_trial_against_the_best_at_its_rung():
    ladder = config(**MEDIAN).search.ladder
    ladder = replace(ladder, pruner="wilcoxon", options={"n_startup_trials": 4, "p_threshold": 0.1})
    rows = [on(n, value) for n, value in enumerate([0.1, 0.9, 0.3, 0.4])]
    assert comparison_trial(ladder, [*rows, on(9, 0.5)], on(9, 0.5), "maximize") == 1
    assert comparison_trial(ladder, [*rows, on(9, 1.0)], on(9, 1.0), "maximize") is None
    assert comparison_trial(ladder, [*rows[:3], on(9, 0.5)], on(9, 0.5), "maximize") is None


def test_items_that_are_surely_worse():
    assert is_significantly_worse([-1.0] * 10 + [0.0] * 30, threshold=0.1)
    assert not is_significantly_worse([-1.0] * 3 + [1.0] * 2 + [0.0] * 30, threshold=0.1)
    assert not is_significantly_worse([1.0] * 10, threshold=0.1)
    assert not is_significantly_worse([0.0] * 10, threshold=0.1)


def test_wilcoxons_p_value_is_the_one_worked_by_hand():
    # five differences of ranks 1 to 5, all negative: one of 2^5 sign patterns is so low, p = 1/32
    assert is_significantly_worse([-1.0, -2.0, -3.0, -4.0, -5.0], threshold=1 / 32 + 1e-9)
    assert not is_significantly_worse([-1.0, -2.0, -3.0, -4.0, -5.0], threshold=1 / 32)


def test_stopped_trials_count_for_the_budget():
    rows = [on(0, 9.0, 9.0, 9.0, state="finished"), on(1, 1.0, state="stopped")]
    reason = stop_reason(config(trials=2), rows, now=NOW)
    assert reason is not None
    assert (reason.kind, reason.text) == ("budget_used", "2 trials finished, 1 of them pruned at a rung")
    assert stop_reason(config(trials=3), rows, now=NOW) is None


def test_only_whole_runs_compete_unless_there_is_none():
    objectives = config().score.objective
    whole = replace(on(0, 1.0, 1.0, 1.0, state="finished"), values=(1.0,))
    assert [row.number for row in best_trials(objectives, [whole, on(1, 9.0, 9.0)])] == [0]
    best = best_trials(objectives, [on(1, 9.0), on(2, 5.0, 4.0), on(3, 5.0, 6.0)])
    assert [(row.number, row.values) for row in best] == [(3, (6.0,))]


def jobs(count: int) -> list[JobRow]:
    return [JobRow(id=f"7_{index}", state="RUNNING") for index in range(count)]


def test_no_worker_is_submitted_that_could_only_wait():
    study = config(trials=4, parallel=4)
    resting = [on(0, 1.0), on(1, 2.0), replace(new(2), state="running", rung=0), on(3, 4.0, state="running")]
    assert next_jobs(study, resting, jobs(2), now=NOW) == []
    promotable = [on(0, 1.0), on(1, 2.0), on(2, 3.0), replace(new(3), state="running", rung=0)]
    [spec] = next_jobs(study, promotable, jobs(1), now=NOW)
    assert spec.count == 1


def test_a_study_with_rungs_starts_with_as_many_workers_as_any():
    [spec] = next_jobs(config(trials=9, parallel=4), [], [], now=NOW)
    assert spec.count == 4


def test_arrays_are_as_long_as_there_are_turns_to_take():
    study = config(trials=9, parallel=4)
    study = study.model_copy(update={"execution": study.execution.model_copy(update={"trials_per_job": 1})})
    [spec] = next_jobs(
        study, [on(n, float(n)) for n in range(6)] + [new(n) for n in range(6, 9)], [], now=NOW
    )
    assert (spec.count, spec.throttle, spec.trials) == (5, 4, 1)


def test_what_a_rung_took_is_what_it_is_expected_to_take():
    rows = [on(0, 1.0, 1.0), on(1, 1.0)]
    assert expected_s(config(), rows, rung=0) == 4
    assert expected_s(config(), rows, rung=1) == 5
    assert expected_s(config(), rows, rung=2) is None
    assert expected_s(config(), rows) == 5


def test_a_rung_fits_where_the_whole_trial_would_not():
    study = config().model_copy(update={"plan": config().plan.model_copy(update={"trial_s": 900.0})})
    study = study.model_copy(update={"resources": study.resources.model_copy(update={"time": "10:00:00"})})
    assert fits(study, [], new(0), left_s=200)
    assert not fits(study, [], on(0, 1.0, 1.0), left_s=200)
