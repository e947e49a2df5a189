"""The Gaussian process against dense formulas and finite differences; priors, failures and collapsed scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal, norm

from hpotune.search.base.unit_cube import Cube, Hint
from hpotune.search.gp.acquisition import (
    log_expected_improvement,
    log_h,
    log_prior,
    maximize_acquisition,
    prior_quantiles,
)
from hpotune.search.gp.failure_model import compressed_scores, log_success_probability
from hpotune.search.gp.gaussian_process import (
    GaussianProcess,
    fit,
    hyperparameter_prior,
    log_likelihood,
    negative_log_posterior,
    sample_hyperparameters,
    squared_distances_by_axis,
)

UNORDERED = np.array([False, True, False])
THETA = np.log([0.4, 0.9, 1.5, 1.3, 0.02])


def data(n: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points with three categories in the middle dimension, scores, and uneven noise."""
    rng = np.random.default_rng(seed)
    points = rng.random((n, 3))
    points[:, 1] = (rng.integers(3, size=n) + 0.5) / 3
    scores = np.sin(5 * points[:, 0]) + (points[:, 1] > 0.4) + 0.1 * rng.standard_normal(n)
    return points, scores - scores.mean(), rng.uniform(0.5, 3, n)


def kernel(a: np.ndarray, b: np.ndarray) -> float:
    """Matern 5/2 of two points, as in the book (Rasmussen and Williams 2006, equation 4.17)."""
    parts_ = [(a[0] - b[0]) ** 2, float(a[1] != b[1]), (a[2] - b[2]) ** 2]
    r = math.sqrt(sum(part / math.exp(t) ** 2 for part, t in zip(parts_, THETA[:3], strict=True)))
    return 1.3 * (1 + math.sqrt(5) * r + 5 * r * r / 3) * math.exp(-math.sqrt(5) * r)


def dense(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([[kernel(x, y) for y in b] for x in a])


def process(points, scores, weights, pending=None) -> GaussianProcess:
    return GaussianProcess(
        points=points, scores=scores, noise_ratios=weights, unordered=UNORDERED, theta=THETA,
        pending=np.empty((0, 3)) if pending is None else pending,
    )  # fmt: skip


def test_prediction_matches_dense_formula():
    points, scores, weights = data()
    new = data(7, seed=1)[0]
    inverse = np.linalg.inv(dense(points, points) + 0.02 * np.diag(weights))
    cross = dense(points, new)
    mean, sd = process(points, scores, weights).predict(new)
    assert mean == pytest.approx(cross.T @ inverse @ scores, abs=1e-9)
    assert sd**2 == pytest.approx(np.diag(dense(new, new) - cross.T @ inverse @ cross), abs=1e-9)


def test_pending_point_only_reduces_deviation():
    points, scores, weights = data()
    new, extra = data(7, seed=1)[0], data(2, seed=2)[0]
    plain = process(points, scores, weights)
    mean, sd = plain.with_pending(extra).predict(new)
    lies = np.append(scores, plain.predict(extra)[0])
    expected = process(np.vstack([points, extra]), lies, np.append(weights, [1, 1])).predict(new)
    assert mean == pytest.approx(plain.predict(new)[0], abs=1e-9)
    assert mean == pytest.approx(expected[0], abs=1e-9)
    assert sd == pytest.approx(expected[1], abs=1e-9)
    assert (sd < plain.predict(new)[1]).all()


def test_likelihood_is_multivariate_normal():
    points, scores, weights = data()
    cover = dense(points, points) + 0.02 * np.diag(weights)
    theirs = multivariate_normal(np.zeros(12), cover).logpdf(scores) + 6 * math.log(2 * math.pi)
    apart = squared_distances_by_axis(points, UNORDERED)
    assert log_likelihood(THETA, apart, scores, weights) == pytest.approx(theirs)
    mean, sd = hyperparameter_prior(3)
    penalty = 0.5 * (((THETA - mean) / sd) ** 2).sum()
    assert negative_log_posterior(THETA, apart, scores, weights)[0] == pytest.approx(penalty - theirs)


def test_gradient_matches_finite_differences():
    points, scores, weights = data()
    known = (squared_distances_by_axis(points, UNORDERED), scores, weights)
    theirs = approx_fprime(THETA, lambda theta: negative_log_posterior(theta, *known)[0], 1e-6)
    assert negative_log_posterior(THETA, *known)[1] == pytest.approx(theirs, rel=1e-4, abs=1e-4)


def test_fit_finds_relevant_axis():
    points, scores, weights = data(60)
    model = fit(points, scores / scores.std(), weights, UNORDERED)
    gradient = negative_log_posterior(
        model.theta, squared_distances_by_axis(points, UNORDERED), scores / scores.std(), weights
    )[1]
    assert np.abs(gradient).max() < 0.05
    assert model.theta[2] > model.theta[0] + 1  # nothing depends on the third dimension


def test_category_order_is_irrelevant():
    points, scores, weights = data()
    other = points.copy()
    other[:, 1] = 1 - points[:, 1]
    new = data(7, seed=1)[0]
    renamed = new.copy()
    renamed[:, 1] = 1 - new[:, 1]
    mine = process(points, scores, weights).predict(new)
    theirs = process(other, scores, weights).predict(renamed)
    assert np.allclose(mine, theirs)


def test_hyperparameters_without_data_follow_prior():
    nothing = GaussianProcess(
        points=np.zeros((1, 1)), scores=np.zeros(1), noise_ratios=np.full(1, 1e8), unordered=np.array([False]),
        theta=hyperparameter_prior(1)[0], pending=np.empty((0, 1)),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    thetas = np.array([m.theta for m in sample_hyperparameters(nothing, count=2000, every=1, rng=rng)])
    mean, sd = hyperparameter_prior(1)
    assert thetas[:, 0].mean() == pytest.approx(mean[0], abs=0.2)
    assert thetas[:, 0].std() == pytest.approx(sd[0], rel=0.1)


@pytest.mark.parametrize("n", [1, 2, 260])
def test_a_constant_is_fitted(n):
    points = np.random.default_rng(0).random((n, 3))
    mean, sd = fit(points, np.zeros(n), np.ones(n), UNORDERED).predict(points[:5])
    assert np.allclose(mean, 0)
    assert np.isfinite(sd).all()


def test_log_expected_improvement_is_exact():
    z = np.linspace(-6, 6, 49)
    assert log_h(z) == pytest.approx(np.log(norm.pdf(z) + z * norm.cdf(z)), abs=1e-6)
    far = np.array([-1e2, -1e3, -1e4])
    assert log_h(far) == pytest.approx(norm.logpdf(far) - 2 * np.log(-far), rel=1e-4)
    found = log_expected_improvement(np.array([0.0, 0.1]), np.array([1e-6, 1e-6]), best=1.0)
    assert found[1] > found[0] > -np.inf


def test_collapsed_score_is_compressed():
    gains = np.append(np.linspace(0.55, 0.56, 20), 0.25)
    found = compressed_scores(gains)
    plain = (gains - gains.mean()) / gains.std()
    assert np.ptp(plain[:20]) < 0.2  # what a collapse does to standardised scores
    assert np.ptp(found[:20]) > 1.5
    assert (np.diff(found[:20]) > 0).all()
    assert found[20] < found[0]


@pytest.mark.parametrize(
    "gains", [[1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0], [1.0, -1e9]]
)
def test_equal_scores_stay_finite(gains):
    found = compressed_scores(np.array(gains))
    assert np.isfinite(found).all()
    assert np.argmax(found) == np.argmax(gains)


def test_failures_lower_success_probability_nearby():
    rng = np.random.default_rng(0)
    points = rng.random((30, 2))
    bad = points[:, 0] > 0.7
    holds = log_success_probability(points[~bad], points[bad], np.array([False, False]))
    good, ill = np.exp(holds(np.array([[0.2, 0.5], [0.95, 0.5]])))
    assert good > 0.9
    assert ill < 0.3
    assert log_success_probability(points, points[:0], np.array([False, False])) is None


def cube() -> Cube:
    space = {
        "lr": FloatDistribution(1e-6, 1e-1, log=True),
        "rank": IntDistribution(2, 64),
        "kind": CategoricalDistribution(("a", "b", "c", "d")),
        "free": FloatDistribution(0.0, 1.0),
    }
    return Cube(space, {"lr": Hint(prior=1e-4), "rank": Hint(prior=8), "kind": Hint(prior="b")})


def test_even_points_follow_the_belief():
    points = prior_quantiles(cube(), np.random.default_rng(0).random((20_000, 4)))
    kinds = np.bincount((points[:, 2] * 4).astype(int), minlength=4) / 20_000
    weights = np.exp(
        log_prior(cube(), cube().snap(np.array([[0.4, 0.1, k, 0.5] for k in (0.1, 0.3, 0.6, 0.9)])))
    )
    assert kinds == pytest.approx(weights / weights.sum(), abs=0.02)
    middle = np.mean(np.abs(points[:, 0] - 0.4) < 0.25)
    assert middle == pytest.approx(0.9 * 0.683 / (norm.cdf(2.4) - norm.cdf(-1.6)) + 0.05, abs=0.02)
    assert np.histogram(points[:, 3], 10, (0, 1))[0] == pytest.approx(2000, abs=200)


def test_acquisition_maximum_is_new():
    centre = cube().point({"lr": 1e-3, "rank": 30, "kind": "c", "free": 0.3})

    def value(points: np.ndarray) -> np.ndarray:
        return -np.square(points - centre).sum(axis=1)

    start = np.full((1, 4), 0.5)
    found = maximize_acquisition(cube(), value, rng=np.random.default_rng(0), best=start, excluded=start)
    assert value(found[None])[0] > -0.003
    assert (cube().snap(found[None])[0] == found).all()
    one = Cube({"kind": CategoricalDistribution(("a", "b", "c"))})
    taken = one.snap(np.array([[0.1], [0.5]]))
    left = maximize_acquisition(
        one, lambda p: -p[:, 0], rng=np.random.default_rng(0), best=taken, excluded=taken
    )
    assert one.params(left) == {"kind": "c"}
