"""Promotion at rungs: ladders worked by hand, with any number of workers and in any order of results."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from hpotune.config.schema.study_config import StudyConfig
from hpotune.records.trial import Failure, RungScore, TrialRow
from hpotune.schedule.best_trials import best_trials
from hpotune.schedule.promotion import (
    comparison_trial,
    first_rung,
    is_below_quantile,
    is_significantly_worse,
    next_rung,
    ranked,
    rung_decisions,
)
from tests.fixtures.rung_rows import breaking, new, on, rung_config


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


def test_asha_promotes_27_9_3():
    play = Play(rung_config(), falling).run()
    assert play.cost == {0: 27, 1: 9, 2: 3}
    assert [row.number for row in play.rows if row.state == "finished"] == [0, 1, 2]
    assert [row.number for row in play.rows if len(row.rung_scores) == 2] == [3, 4, 5, 6, 7, 8]
    assert Counter(row.state for row in play.rows) == {"finished": 3, "stopped": 24}


def test_three_scores_promote_the_best():
    rows = [on(0, 5.0), on(1, 7.0), new(2)]
    assert asked(rung_config(), rows).promoted == ()
    assert asked(rung_config(), [*rows[:2], on(2, 6.0)]).promoted == (1,)


def test_highest_rung_and_best_first():
    rows = [on(0, 9.0, 9.0), on(1, 8.0, 8.0), on(2, 7.0, 7.0), *(on(n, float(n)) for n in range(3, 9))]
    rows += [on(9, 9.5), on(10, 9.4), on(11, 0.0), new(12)]
    found = asked(rung_config(), rows)
    assert found.promoted == (0, 9, 10)
    assert found.new == (12,)


def test_promoted_trial_is_not_promoted_twice():
    rows = [on(0, 3.0, state="running"), on(1, 2.0), on(2, 1.0), on(3, 9.0), on(4, 8.0), on(5, 0.5)]
    assert asked(rung_config(), rows).promoted == (3, 4)


def test_interrupted_trial_continues_first():
    paused = replace(
        on(1, 5.0), rung=1, attempts=(*on(1, 5.0).attempts, replace(on(1, 5.0).attempts[0], outcome="paused"))
    )
    rows = [on(0, 9.0), paused, on(2, 4.0), new(3)]
    found = asked(rung_config(), rows)
    assert (found.paused, found.promoted, found.new) == ((1,), (0,), (3,))
    assert next_rung(rung_config().search.ladder, paused) == 1
    assert next_rung(rung_config().search.ladder, rows[0]) == 1


def test_unowned_trial_is_claimed_again():
    row = replace(new(0), rung=0)
    assert asked(rung_config(trials=1), [row]).paused == (0,)


def test_failed_trial_counts_on_its_rungs():
    failed = replace(on(0, 9.0), state="failed", failure=Failure(cause="nan", message="x"))
    rows = [failed, on(1, 8.0), on(2, 7.0)]
    assert asked(rung_config(), rows).promoted == ()
    more = [*rows, on(3, 1.0), on(4, 2.0), on(5, 3.0)]
    assert asked(rung_config(), more).promoted == (1,)


def test_pruning_waits_for_all_trials():
    rows = [on(0, 9.0, 9.0, 9.0, state="finished"), on(1, 8.0), on(2, 7.0)]
    assert asked(rung_config(trials=4), rows).pruned == ()
    assert asked(rung_config(trials=4), [*rows, new(3)]).pruned == ()
    running = replace(new(3), state="running", rung=0)
    assert asked(rung_config(trials=4), [*rows, running]).pruned == ()
    assert asked(rung_config(trials=4), [*rows, on(3, 0.0)]).pruned == (1, 2, 3)


def test_few_trials_still_finish_one():
    play = Play(rung_config(trials=2), falling).run()
    assert [row.state for row in play.rows] == ["finished", "stopped"]
    assert play.cost == {0: 2, 1: 1, 2: 1}


def test_broken_limits_promote_a_waiting_trial():
    ended = [replace(on(n, 9.0, 9.0, 9.0, state="finished"), breaks=("loss 3 > 2",)) for n in range(4)]
    rests = [breaking(on(4, 8.0)), on(5, 1.0), on(6, 2.0)]
    study = rung_config(trials=4)
    assert asked(study, [ended[0], *rests]).promoted == (6,)
    assert asked(study, [replace(ended[0], breaks=()), *rests]).pruned == (4, 5, 6)
    assert asked(study, [ended[0], *map(breaking, rests)]).pruned == (4, 5, 6)
    assert asked(rung_config(trials=6), [*ended[:3], *rests]).pruned == (4, 5, 6)  # three are enough


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("workers", [1, 4, 16])
def test_any_order_finds_the_best(workers, seed):
    order = random.Random(seed).sample(range(27), 27)
    play = Play(rung_config(), lambda number, rung: order[number]).run(workers=workers, seed=seed)
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


def test_objectives_rank_by_front_then_crowding():
    senses = ["minimize", "minimize"]
    values = [(1, 5), (2, 2), (5, 1), (3, 3), (1.5, 4)]
    # front: 0 1 2 4; the ends first, then (2, 2): (5-1.5)/4 + (4-1)/4 = 1.6, (1.5, 4): (2-1)/4 + (5-2)/4 = 1
    assert ranked(values, senses) == [0, 2, 1, 4, 3]


def test_broken_limits_rank_last():
    values = [(1.0,), (2.0,), (3.0,), (4.0,)]
    assert ranked(values, ["maximize"], broken=[False, False, True, True]) == [1, 0, 3, 2]
    assert ranked([(1, 5), (0, 0), (5, 1)], ["minimize"] * 2, broken=[False, True, False]) == [0, 2, 1]


def test_broken_limit_promotes_only_if_needed():
    rows = [breaking(on(0, 9.0)), on(1, 1.0), on(2, 2.0), *(new(n) for n in range(3, 27))]
    assert asked(rung_config(), rows).promoted == (2,)
    assert asked(rung_config(), [breaking(row) for row in rows]).promoted == (0,)


def test_broken_limits_are_never_compared():
    rows = [breaking(on(9, 9.0, 9.0)), *(on(n, 1.0 * n, 1.0 * n) for n in range(6))]
    median = rung_config(pruner="median").search.ladder
    assert not is_below_quantile(median, rows, rows[-1], "maximize")
    wilcoxon = replace(median, pruner="wilcoxon", options={"n_startup_trials": 4, "p_threshold": 0.1})
    assert comparison_trial(wilcoxon, rows, rows[1], "maximize") == 5
    assert comparison_trial(wilcoxon, [breaking(row) for row in rows[1:]], rows[1], "maximize") is None
    assert (
        comparison_trial(wilcoxon, [*map(breaking, rows[:3]), *rows[3:]], rows[3], "maximize") is None
    )  # three others
    assert [row.number for row in best_trials(rung_config().score.objective, rows, None)] == [5]


def test_pareto_front_is_promoted():
    both = [{"metric": "a", "direction": "minimize"}, {"metric": "b", "direction": "minimize"}]
    rows = [
        on(0, (3.0, 3.0)),
        on(1, (1.0, 5.0)),
        on(2, (5.0, 1.0)),
        on(3, (2.0, 2.0)),
        on(4, (6, 6)),
        on(5, (7, 7)),
    ]
    assert set(asked(rung_config(objectives=both), rows).promoted) == {1, 2}
    assert 3 in asked(rung_config(objectives=both, pruner_options={"eta": 2}), rows).promoted


def test_hyperband_brackets_match_the_paper():
    ladder = rung_config(pruner="hyperband").search.ladder
    assert Counter(first_rung(ladder, number) for number in range(17)) == {0: 9, 1: 5, 2: 3}
    assert [first_rung(ladder, number) for number in range(17, 34)] == [
        first_rung(ladder, n) for n in range(17)
    ]


def test_hyperband_brackets_are_independent():
    study = rung_config(pruner="hyperband")
    ladder = study.search.ladder
    low = [n for n in range(17) if first_rung(ladder, n) == 0]
    middle = [n for n in range(17) if first_rung(ladder, n) == 1]
    rows = {n: new(n) for n in range(17)}
    rows |= {n: on(n, float(n)) for n in low[:3]} | {n: on(n, 100.0 + n, first=1) for n in middle[:2]}
    assert asked(study, list(rows.values())).promoted == (low[2],)
    rows[middle[2]] = on(middle[2], 1.0, first=1)
    assert asked(study, list(rows.values())).promoted == (middle[1], low[2])


def test_hyperband_runs_some_trials_whole():
    play = Play(rung_config(pruner="hyperband", trials=17), falling).run()
    straight = [row for row in play.rows if [c.rung for c in row.rung_scores] == [2]]
    assert len(straight) == 3
    assert all(row.state == "finished" for row in straight)


MEDIAN = {"pruner": "median"}


def behind(rows: list[TrialRow], row: TrialRow, *, warm: bool = False, **search) -> bool:
    ladder = rung_config(**search).search.ladder
    return is_below_quantile(ladder, [*rows, row], row, "maximize", warm=warm)


def test_trial_below_median_is_pruned():
    rows = [on(n, value) for n, value in enumerate([1.0, 2.0, 3.0, 4.0])]
    assert behind(rows, on(9, 2.4), **MEDIAN)
    assert not behind(rows, on(9, 2.5), **MEDIAN)
    assert not behind(rows[:3], on(9, 0.0), **MEDIAN)


def test_median_uses_best_value_so_far():
    rows = [on(n, 0.0, value) for n, value in enumerate([1.0, 2.0, 3.0, 4.0])]
    assert not behind(rows, on(9, 3.0, 0.0), **MEDIAN)
    assert behind(rows, on(9, 2.0, 2.0), **MEDIAN)


def test_percentile_keeps_the_best_third():
    rows = [on(n, float(n)) for n in range(7)]
    assert behind(rows, on(9, 3.9), pruner="percentile")
    assert not behind(rows, on(9, 4.1), pruner="percentile")


def test_warmup_is_never_pruned():
    rows = [on(n, 9.0) for n in range(5)]
    assert not behind(rows, on(9, 0.0), **MEDIAN, rungs=[0.1, 0.5, 1])
    assert behind(rows, on(9, 0.0), **MEDIAN, rungs=[0.2, 0.5, 1])
    assert not behind(rows, on(9, 0.0), **MEDIAN, warm=True)


def test_median_survivors_are_promoted_at_once():
    rows = [on(0, 1.0), on(1, 1.0, 1.0), new(2)]
    assert asked(rung_config(**MEDIAN), rows).promoted == (1, 0)


def test_wilcoxon_compares_with_best_at_rung():
    ladder = rung_config(**MEDIAN).search.ladder
    ladder = replace(ladder, pruner="wilcoxon", options={"n_startup_trials": 4, "p_threshold": 0.1})
    rows = [on(n, value) for n, value in enumerate([0.1, 0.9, 0.3, 0.4])]
    assert comparison_trial(ladder, [*rows, on(9, 0.5)], on(9, 0.5), "maximize") == 1
    assert comparison_trial(ladder, [*rows, on(9, 1.0)], on(9, 1.0), "maximize") is None
    assert comparison_trial(ladder, [*rows[:3], on(9, 0.5)], on(9, 0.5), "maximize") is None


def test_worse_items_are_significant():
    assert is_significantly_worse([-1.0] * 10 + [0.0] * 30, threshold=0.1)
    assert not is_significantly_worse([-1.0] * 3 + [1.0] * 2 + [0.0] * 30, threshold=0.1)
    assert not is_significantly_worse([1.0] * 10, threshold=0.1)
    assert not is_significantly_worse([0.0] * 10, threshold=0.1)


def test_wilcoxon_p_value_matches_hand_calculation():
    # five differences of ranks 1 to 5, all negative: one of 2^5 sign patterns is so low, p = 1/32
    assert is_significantly_worse([-1.0, -2.0, -3.0, -4.0, -5.0], threshold=1 / 32 + 1e-9)
    assert not is_significantly_worse([-1.0, -2.0, -3.0, -4.0, -5.0], threshold=1 / 32)
