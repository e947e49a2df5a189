"""The view of one trial."""

from __future__ import annotations

from hpotune.reporting.views.trial_view import trial_view
from tests.fixtures.report_rows import config, finished, paused, running, scored_at_rungs

OBJECTIVES = config().score.objective


def test_interrupted_trial_is_paused() -> None:
    assert trial_view(OBJECTIVES, paused(2)).state == "paused"


def test_trial_waiting_for_promotion_rests() -> None:
    view = trial_view(OBJECTIVES, scored_at_rungs(2, 0.3, 0.4))
    assert (view.state, [rung.values for rung in view.rungs]) == ("resting", [(0.3,), (0.4,)])


def test_attempts_include_the_running_one() -> None:
    assert trial_view(OBJECTIVES, running(1)).attempts == 1
    assert trial_view(OBJECTIVES, finished(1)).attempts == 1


def test_values_are_keyed_by_label() -> None:
    view = trial_view(OBJECTIVES, finished(1, 0.5))
    assert (view.values, view.stderrs, view.seconds) == ({"acc": 0.5}, {"acc": 0.01}, 3600)
