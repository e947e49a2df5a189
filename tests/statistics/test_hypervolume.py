"""The hypervolume against Optuna's, and by hand."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna._hypervolume import compute_hypervolume

from hpotune.statistics.hypervolume import hypervolume, hypervolume_history, reference_point


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_volume_equals_optunas(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    for size in (1, 2, 7, 25):
        points = rng.random((size, objectives)).round(1)  # with ties
        reference = np.full(objectives, 0.95)
        expected = compute_hypervolume(points[(points < 0.95).all(axis=1)], reference)
        assert hypervolume(points, reference) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("objectives", [2, 3])
def test_history_equals_optunas(objectives: int) -> None:
    from optuna.visualization._hypervolume_history import _get_hypervolume_history_info

    points = np.random.default_rng(0).random((40, objectives)).round(2)
    study = optuna.create_study(directions=["minimize"] * objectives)
    study.add_trials([optuna.trial.create_trial(values=list(map(float, point))) for point in points])
    reference = np.full(objectives, 0.8)
    expected = _get_hypervolume_history_info(study, reference).values
    assert hypervolume_history(points, reference) == pytest.approx(expected, abs=1e-12)
    assert hypervolume(points, reference) == pytest.approx(expected[-1])


def test_two_boxes_by_hand() -> None:
    """Two boxes of 3 x 1 and 1 x 3 that share a unit square."""
    points = np.array([[0.0, 2.0], [2.0, 0.0], [2.5, 2.5]])
    assert hypervolume(points, np.array([3.0, 3.0])) == 5
    assert hypervolume_history(points, np.array([3.0, 3.0])).tolist() == [3, 5, 5]


def test_reference_is_beyond_the_front() -> None:
    points = np.array([[0.0, 2.0], [2.0, 0.0], [9.0, 9.0]])
    assert reference_point(points) == pytest.approx([2.2, 2.2])
    assert reference_point(points[[0, 2]]) == pytest.approx([0.9, 2.7])
    assert reference_point(points[:1]) == pytest.approx([0.1, 2.2])
