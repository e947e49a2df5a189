"""Textbook Bayesian optimization: Latin hypercube, batches, Optuna's own sampler tests."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from hpotune.errors import StudyFileError
from hpotune.search.algorithms.gp import GpSampler
from hpotune.search.algorithms.registry import check_algorithm
from hpotune.search.base.history import History
from hpotune.search.base.sampler import SamplerSetup, SamplingContext
from hpotune.search.base.unit_cube import Cube
from hpotune.search.sampler_setup import sampler_setup
from tests.search.play import Play

PARAMS = {"x": {"float": [0.0, 1.0]}, "y": {"float": [0.0, 1.0]}, "kind": {"choice": ["a", "b", "c"]}}


def score(point: dict) -> float:
    """Its maximum is 0."""
    away = (point["params.x"] - 0.3) ** 2 + (point["params.y"] - 0.8) ** 2
    return away + (0.0 if point["params.kind"] == "b" else 0.3)


def played(study, *, trials: int, options: dict | None = None, seed: int = 0) -> list[dict]:
    play, points = Play(study, algorithm="gp", seed=seed, options=options), []
    for _ in range(trials):
        number, point = play.ask()
        points.append(point)
        play.tell(number, score(point))
    return points


def test_first_trials_are_latin_hypercube(make_study):
    points = played(make_study(params=PARAMS), trials=8, options={"n_startup": 8})
    for name in ("params.x", "params.y"):
        assert sorted(int(point[name] * 8) for point in points) == list(range(8))


@pytest.mark.parametrize("options", [{}, {"transform": "winsor"}])
def test_optimum_of_bowl_is_found(options, make_study):
    points = played(make_study(params=PARAMS), trials=25, options=options)
    assert min(map(score, points)) < 0.01
    assert min(map(score, points[:10])) > 0.01


@pytest.mark.parametrize("batch", ["believer", "liar"])
def test_a_batch_has_different_points(batch, make_study):
    play = Play(make_study(params=PARAMS), algorithm="gp", options={"batch": batch, "n_startup": 4})
    for _ in range(6):
        number, point = play.ask()
        play.tell(number, score(point))
    points = np.array([[point["params.x"], point["params.y"]] for point in (play.ask()[1] for _ in range(8))])
    apart = np.linalg.norm(points[:, None] - points[None], axis=2) + np.eye(8)
    assert apart.min() > 1e-3


def test_liar_avoids_pending_more():
    cube = Cube({"x": FloatDistribution(0.0, 1.0)})
    points = np.array([[0.1], [0.35], [0.6], [0.9]])
    running = np.array([[0.45]])
    history = History(
        points=points, gains=-np.square(points[:, 0] - 0.45), stderrs=np.full(4, np.nan), numbers=np.arange(4),
        pending=running, failed=np.empty((0, 1)),
    )  # fmt: skip

    def away(batch: str) -> float:
        sampler = GpSampler(SamplerSetup(options={"batch": batch, "n_startup": 1}))
        context = SamplingContext(number=5, rank=5, rng=np.random.default_rng(0))
        return abs(float(sampler.propose(cube, history, context)[0]) - 0.45)

    assert away("liar") > away("believer")


def test_failures_and_ties_continue(make_study):
    for values in ((), (1.0,)):
        play = Play(make_study(params=PARAMS), algorithm="gp", options={"n_startup": 3})
        for _ in range(8):
            play.tell(play.ask()[0], *values)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_startup": 0}, "n_startup=0"),
        ({"transform": "rank"}, "transform='rank'"),
        ({"batch": "x"}, "batch='x'"),
    ],
)
def test_invalid_option_is_refused(options, said, make_study):
    study = make_study(params=PARAMS, search={"algorithm": "gp", "options": options})
    with pytest.raises(StudyFileError, match=said):
        check_algorithm(study, sampler_setup(study, study.config))


@pytest.mark.parametrize(
    "changes",
    [
        {"params": {**PARAMS, "z": {"float": [0, 1], "when": {"params.kind": "a"}}}},
        {"score": {"objective": [{"metric": name, "direction": "minimize"} for name in ("a", "b")]}},
    ],
)
def test_conditions_and_several_objectives_are_refused(changes, make_study):
    study = make_study(**{"params": PARAMS, **changes}, search={"algorithm": "gp"})
    with pytest.raises(StudyFileError, match="does not support"):
        check_algorithm(study, sampler_setup(study, study.config))


class TestGpIsAnOptunaSampler(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture
    def sampler(self):
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        return lambda: GpSampler(SamplerSetup(options={"n_startup": 2}))
