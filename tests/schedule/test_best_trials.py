"""The best trials: one objective, a Pareto front, rungs."""

from __future__ import annotations

from dataclasses import replace

from hpotune.schedule.best_trials import best_trials
from tests.fixtures.rung_rows import on, rung_config
from tests.fixtures.study_rows import DOWN, UP, row


def test_best_is_smallest_then_earliest():
    tried = [row(n, "finished", value=value) for n, value in enumerate((3.0, 1.0, 1.0))]
    assert [best.number for best in best_trials(DOWN, tried, None)] == [1]


def test_best_is_largest_when_maximized():
    tried = [row(n, "finished", value=value) for n, value in enumerate((3.0, 1.0))]
    assert [best.number for best in best_trials(UP, tried, None)] == [0]


def test_baseline_is_never_the_best():
    tried = [row(0, "finished", value=0.0, kind="baseline"), row(1, "finished", value=9.0)]
    assert [best.number for best in best_trials(DOWN, tried, None)] == [1]


def test_two_objectives_give_pareto_front():
    points = [(1.0, 1.0), (2.0, 3.0), (0.5, 0.5), (3.0, 2.0), (1.0, 3.0)]
    tried = [row(n, "finished", value=point) for n, point in enumerate(points)]
    assert sorted(best.number for best in best_trials([*DOWN, *UP], tried, None)) == [2, 4]


def test_complete_runs_are_preferred():
    objectives = rung_config().score.objective
    whole = replace(on(0, 1.0, 1.0, 1.0, state="finished"), values=(1.0,))
    assert [row.number for row in best_trials(objectives, [whole, on(1, 9.0, 9.0)], None)] == [0]
    best = best_trials(objectives, [on(1, 9.0), on(2, 5.0, 4.0), on(3, 5.0, 6.0)], None)
    assert [(row.number, row.values) for row in best] == [(3, (6.0,))]
